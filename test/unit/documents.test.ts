import assert from 'node:assert/strict';
import type { Dirent } from 'node:fs';
import { glob, readFile, stat } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, it } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const README_LINES_MAX = 250;
const ARCHITECTURE_WORDS_MAX = 2500;

const NOT_OURS: ReadonlySet<string> = new Set(['.git', 'build', 'node_modules']);

/** The project's own files, by their paths from its root. */
async function ourFiles(pattern: string): Promise<readonly string[]> {
  const found: string[] = [];
  const options = { cwd: ROOT, withFileTypes: true, exclude: (entry: Dirent) => NOT_OURS.has(entry.name) } as const;
  for await (const entry of glob(pattern, options)) {
    if (entry.isFile()) found.push(relative(ROOT, join(entry.parentPath, entry.name)));
  }
  return found.sort();
}

function read(name: string): Promise<string> {
  return readFile(join(ROOT, name), 'utf8');
}

/** Without code, in which brackets and number signs mean something else. */
function prose(text: string): string {
  return text.replaceAll(/^ *```[\s\S]*?^ *```/gm, '').replaceAll(/`[^`\n]*`/g, '');
}

/** Where the links of a document lead: targets as they are written, without those to other hosts. */
function linksOf(text: string): readonly string[] {
  return [...prose(text).matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target]) => target ?? '')
    .filter((target) => !/^[a-z]+:/.test(target));
}

/** The names by which GitHub lets one link to a document's headings. */
function anchorsOf(text: string): ReadonlySet<string> {
  const headings = text.replaceAll(/^ *```[\s\S]*?^ *```/gm, '').matchAll(/^#+ +(.+)$/gm);
  return new Set(
    [...headings].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

describe('documents', () => {
  it('every relative link leads to a file, and to a heading in it', async () => {
    const documents = await ourFiles('**/*.md');
    const broken: string[] = [];
    let links = 0;
    for (const document of documents) {
      for (const link of linksOf(await read(document))) {
        links += 1;
        const [path = '', anchor] = link.split('#');
        const target = path === '' ? join(ROOT, document) : resolve(ROOT, dirname(document), path);
        const found = await stat(target).catch(() => undefined);
        if (found === undefined) broken.push(`${document}: ${link}`);
        else if (anchor !== undefined && !anchorsOf(await readFile(target, 'utf8')).has(anchor))
          broken.push(`${document}: ${link} (no such heading)`);
      }
    }
    assert.deepEqual(broken, []);
    assert.ok(links > documents.length, `${links} links were found`);
  });

  it('every document of docs/ that code and scripts name is there', async () => {
    const files = new Set(await ourFiles('docs/**'));
    const sources = await ourFiles('{src,scripts,packaging,bin,proto}/**');
    const missing: string[] = [];
    for (const source of sources.filter((name) => !name.startsWith('src/grpc/generated/'))) {
      for (const [name] of (await read(source)).matchAll(/\bdocs\/[a-z0-9-]+\.md\b/g))
        if (!files.has(name)) missing.push(`${source}: ${name}`);
    }
    assert.deepEqual(missing, []);
  });

  it('README.md leads to every document of docs/', async () => {
    const linked = new Set(linksOf(await read('README.md')));
    const documents = await ourFiles('docs/*.md');
    assert.deepEqual(
      documents.filter((name) => !linked.has(name)),
      [],
    );
  });

  it(`README.md has less than ${README_LINES_MAX} lines`, async () => {
    const lines = (await read('README.md')).split('\n').length - 1;
    assert.ok(lines < README_LINES_MAX, `${lines} lines`);
  });

  it(`ARCHITECTURE.md has less than ${ARCHITECTURE_WORDS_MAX} words`, async () => {
    const words = (await read('ARCHITECTURE.md')).split(/\s+/).filter((word) => word !== '').length;
    assert.ok(words < ARCHITECTURE_WORDS_MAX, `${words} words`);
  });

  it('ARCHITECTURE.md names every folder that lint knows', async () => {
    const text = await read('ARCHITECTURE.md');
    const config = await read('eslint.config.ts');
    const table = /const mayImport[^{]*\{([\s\S]*?)\n\};/.exec(config)?.[1] ?? '';
    const folders = [...table.matchAll(/^ {2}'?([a-z/-]+)'?: \[/gm)].map(([, name = '']) => name);
    assert.ok(folders.length > 10);
    assert.deepEqual(
      folders.filter((name) => !text.includes(`| \`${name}\``)),
      [],
    );
  });

  it('docs/security.md names tests that are there, and each row of its threat model one', async () => {
    const text = await read('docs/security.md');
    const named = [...text.matchAll(/\btest\/[a-z0-9/-]+\.test\.ts\b/g)].map(([name]) => name);
    const tests = new Set(await ourFiles('test/**/*.test.ts'));
    assert.deepEqual(
      named.filter((name) => !tests.has(name)),
      [],
    );
    const model = /^## Threat model\n([\s\S]*?)^## /m.exec(text)?.[1] ?? '';
    const rows = model.split('\n').filter((line) => /^\| (?!(they|it) tr(y|ies) |--)/.test(line));
    assert.deepEqual(
      rows.filter((row) => !/\.test\.ts` *\|$/.test(row)),
      [],
    );
    assert.ok(rows.length > 20, `${rows.length} rows`);
    for (const attacker of ['The guest', 'QEMU', "A pod's author", 'A caller', 'A local user', 'The host']) {
      assert.ok(model.includes(`\n### ${attacker}\n`), attacker);
    }
  });
});
