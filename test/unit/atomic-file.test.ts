import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { writeAtomically } from '../../src/base/atomic-file.ts';
import { openFiles } from '../support/leaks.ts';

describe('files that are replaced at once', () => {
  it('the new contents, for its owner only, and nothing beside it', async () => {
    await using it = await directory();
    const path = join(it.path, 'state.json');
    for (const text of ['first, and longer', 'second']) {
      await writeAtomically(path, text);
      assert.equal(await readFile(path, 'utf8'), text);
    }
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.deepEqual(await readdir(it.path), ['state.json']);
    await nothingOpenBelow(it.path);
  });

  it('one that cannot be put in its place: what was there stays, and nothing beside it', async () => {
    await using it = await directory();
    const path = join(it.path, 'state.json');
    // No file can take the place of a directory.
    await mkdir(path);
    await assert.rejects(writeAtomically(path, 'new'), { syscall: 'rename' });
    assert.deepEqual(await readdir(it.path), ['state.json']);
    assert.ok((await stat(path)).isDirectory());
    await nothingOpenBelow(it.path);
  });

  it('without its directory, and without the right to make a file', async () => {
    await using it = await directory();
    await assert.rejects(writeAtomically(join(it.path, 'missing', 'state.json'), 'new'), { code: 'ENOENT' });
    // Root may do everything, so the name that is taken by a directory stands for the right that is missing.
    await mkdir(join(it.path, 'state.json.new'));
    await assert.rejects(writeAtomically(join(it.path, 'state.json'), 'new'), { code: 'EISDIR' });
    assert.deepEqual(await readdir(it.path), ['state.json.new']);
    await nothingOpenBelow(it.path);
  });
});

async function directory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'qshim-atomic-'));
  await chmod(path, 0o700);
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

async function nothingOpenBelow(path: string): Promise<void> {
  assert.deepEqual(
    (await openFiles(process.pid)).filter((each) => each.startsWith(path)),
    [],
  );
}
