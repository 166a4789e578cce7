import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cutLog, olderLog } from '../../src/sandbox/log-limit.ts';

await describe('a log with a limit', async () => {
  let directory = '';
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'qshim-log-'));
  });
  after(() => rm(directory, { recursive: true }));

  await it('is left alone up to its limit', async () => {
    const path = join(directory, 'small');
    await writeFile(path, 'x'.repeat(100));
    assert.equal(await cutLog(path, 100), false);
    assert.equal((await stat(path)).size, 100);
    await assert.rejects(stat(olderLog(path)), { code: 'ENOENT' });
  });

  await it('beyond it keeps its last half in a second file, and goes on empty', async () => {
    const path = join(directory, 'large');
    await writeFile(olderLog(path), 'from the time before', { mode: 0o600 });
    await writeFile(path, `${'a'.repeat(60)}${'b'.repeat(50)}`);
    assert.equal(await cutLog(path, 100), true);
    await appendFile(path, 'c');
    assert.equal(await readFile(olderLog(path), 'utf8'), 'b'.repeat(50));
    assert.equal(await readFile(path, 'utf8'), 'c');
    assert.equal((await stat(olderLog(path))).mode & 0o777, 0o600);
  });
});
