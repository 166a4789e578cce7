import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { BackingClaims } from '../../src/volume/claims.ts';
import { StaleCopies, type StaleCopy } from '../../src/volume/stale-copies.ts';

const OLD = { described: '/v/a.raw', identity: 'file:1:2' };
const COPY: StaleCopy = {
  ...{ identity: OLD.identity, path: OLD.described, currentPath: '/w/b.raw' },
  ...{ sandboxId: 'sb', volumeId: 'a', generation: 3, sinceMs: 1_767_323_050_000 },
};

describe('stale copies', () => {
  it('are known to the next daemon, by what they are and by where they are, until they are released', async () => {
    await using it = await directory();
    const first = await StaleCopies.open(it.file);
    assert.deepEqual(first.list(), []);
    assert.deepEqual(await readdir(it.path), [], 'a host without a failover has no such file');
    await first.add(COPY);
    await first.add({ ...COPY, identity: 'file:1:9', path: '/v/other.raw' });
    const second = await StaleCopies.open(it.file);
    assert.deepEqual(second.list(), first.list());
    assert.deepEqual(second.find({ ...OLD, described: '/moved/a.raw' }), COPY);
    assert.deepEqual(second.find({ ...OLD, identity: 'file:1:77' }), COPY, 'put back from somewhere');
    assert.equal(second.find({ identity: 'file:1:3', described: '/v/c.raw' }), undefined);
    await assert.rejects(second.release('/v/c.raw'), { code: 'NOT_FOUND', reason: 'STALE_COPY_NOT_FOUND' });
    assert.deepEqual(await second.release(COPY.path), COPY);
    await second.overwritten({ identity: 'file:1:9', described: '/elsewhere' });
    assert.deepEqual((await StaleCopies.open(it.file)).list(), []);
  });

  it('one that loses again is known once, with where the guest went on last', async () => {
    await using it = await directory();
    const copies = await StaleCopies.open(it.file);
    await copies.add(COPY);
    await copies.add({ ...COPY, currentPath: '/x/c.raw' });
    assert.deepEqual(copies.list(), [{ ...COPY, currentPath: '/x/c.raw' }]);
  });

  it('a fence that cannot be written holds in this daemon, and one whose end cannot be written stays', async () => {
    await using it = await directory();
    const copies = await StaleCopies.open(it.file);
    const obstacle = `${it.file}.new`;
    await mkdir(obstacle);
    await assert.rejects(copies.add(COPY), { reason: 'JOURNAL_WRITE_FAILED' });
    assert.deepEqual(copies.find(OLD), COPY);
    await rmdir(obstacle);
    await copies.add(COPY);
    await mkdir(obstacle);
    await assert.rejects(copies.release(COPY.path), { reason: 'JOURNAL_WRITE_FAILED' });
    assert.deepEqual(copies.find(OLD), COPY);
    await rmdir(obstacle);
  });

  it('a file that cannot be read, or is of a later version, is no empty one', async () => {
    await using it = await directory();
    for (const text of ['', '{"version":1,"copies":[{}]}', '{"version":2,"copies":[]}']) {
      await writeFile(it.file, text);
      await assert.rejects(StaleCopies.open(it.file), { reason: 'STALE_COPIES_UNREADABLE' }, text);
    }
  });

  it('are claimed by nobody, to read neither, but by who overwrites them or has them open already', () => {
    const claims = new BackingClaims({ find: ({ identity }) => (identity === OLD.identity ? COPY : undefined) });
    for (const writable of [true, false]) {
      assert.throws(() => claims.claim(OLD, 'one', writable), {
        code: 'FAILED_PRECONDITION',
        reason: 'SOURCE_STALE_COPY',
        metadata: {
          ...{ path: '/v/a.raw', currentPath: '/w/b.raw', sandboxId: 'sb', volumeId: 'a' },
          since: '2026-01-02T03:04:10.000Z',
        },
      });
    }
    claims.claim({ described: '/v/b.raw', identity: 'file:1:3' }, 'one', true);
    claims.claim(OLD, 'one', true, 'overwrite');
    assert.throws(() => claims.claim(OLD, 'two', true, 'held'), { reason: 'BACKING_IN_USE' });
    claims.release(OLD.identity, 'one');
    claims.claim(OLD, 'two', true, 'held');
  });
});

async function directory(): Promise<AsyncDisposable & { readonly path: string; readonly file: string }> {
  const path = await mkdtemp(join(tmpdir(), 'qshim-stale-'));
  const file = join(path, '.stale-copies.json');
  return { path, file, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
