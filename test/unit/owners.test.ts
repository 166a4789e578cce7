import assert from 'node:assert/strict';
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import ts from 'typescript';

/** One owner for each object, one module for each kind of source: what the compiler does not hold by itself. */

const root = join(import.meta.dirname, '../..');

async function parse(path: string): Promise<ts.SourceFile> {
  return ts.createSourceFile(path, await readFile(join(root, path), 'utf8'), ts.ScriptTarget.Latest, true);
}

/** Members of a class that another file could write: neither #private nor readonly, or with a setter. */
function openMembers(file: ts.SourceFile, name: string): readonly string[] {
  const found = file.statements.find((node) => ts.isClassDeclaration(node) && node.name?.text === name);
  assert.ok(found !== undefined && ts.isClassDeclaration(found), `no class ${name}`);
  const properties = found.members.filter((member) => ts.isPropertyDeclaration(member));
  assert.ok(properties.length > 5, `${name} has ${properties.length} fields`);
  const isReadonly = (member: ts.PropertyDeclaration): boolean =>
    member.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ReadonlyKeyword) ?? false;
  return [...properties.filter((member) => !isReadonly(member)), ...found.members.filter(ts.isSetAccessorDeclaration)]
    .filter((member) => !ts.isPrivateIdentifier(member.name))
    .map((member) => member.name.getText());
}

describe('owners', () => {
  it('every field of Sandbox and of Volume is private or readonly: only its class writes it', async () => {
    assert.deepEqual(openMembers(await parse('src/sandbox/sandbox.ts'), 'Sandbox'), []);
    assert.deepEqual(openMembers(await parse('src/volume/volume.ts'), 'Volume'), []);
  });

  it('nobody outside volume/source asks of which kind a source is', async () => {
    const asking: string[] = [];
    for await (const path of glob('src/**/*.ts', { cwd: root })) {
      if (path.startsWith('src/volume/source/')) continue;
      const text = await readFile(join(root, path), 'utf8');
      if (/\bsource\??\.kind\s*[!=]==|switch \(.*\bsource\??\.kind\)/.test(text)) asking.push(path);
    }
    assert.deepEqual(asking, []);
  });
});
