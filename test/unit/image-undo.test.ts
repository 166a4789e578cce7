import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { luks1OverheadBytes } from '../../src/volume/model/luks1.ts';
import { fileIdentity } from '../../src/volume/source/local.ts';
import { beforeCreation, undoCreation, type CreatingVolume } from '../../src/volume/image-undo.ts';
import { writeAt } from '../support/confidential.ts';

const MIB = 1024 * 1024;
const HEADER_BYTES = luks1OverheadBytes('aes-256');
const GUEST_BYTES = 3 * MIB;
const MADE_BYTES = HEADER_BYTES + GUEST_BYTES;

/** A volume whose source has `sourceBytes` and is to become an image. */
async function scratch(sourceBytes: number): Promise<AsyncDisposable & { path: string; volume: CreatingVolume }> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-undo-'));
  const path = join(directory, 'image.raw');
  await writeFile(path, '');
  await truncate(path, sourceBytes);
  const encryption = { kind: 'host-luks', cipher: 'aes-256' };
  const backingIdentity = fileIdentity(await stat(path));
  // Only what the undo reads.
  const identity = { resolvedPath: path, backingIdentity, spec: { encryption } };
  const creating = await beforeCreation(path);
  const volume = { id: 'v', identity, sizeBytes: GUEST_BYTES, creating } as unknown as CreatingVolume;
  return { path, volume, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

/** The messages that the undo logged. */
async function undo(volume: CreatingVolume, scanBytesMax = 64 * MIB): Promise<readonly string[]> {
  const logged: string[] = [];
  await undoCreation(volume, { scanBytesMax, log: createLogger('info', { write: (line) => void logged.push(line) }) });
  return logged.map((line) => {
    const { msg, problem = '' } = JSON.parse(line) as { msg: string; problem?: string };
    return `${msg}: ${problem}`;
  });
}

describe('the undo of making an image', () => {
  for (const sourceBytes of [0, MIB, MADE_BYTES, 8 * MIB]) {
    for (const grown of [false, true]) {
      it(`${sourceBytes} bytes, ${grown ? 'after' : 'before'} QEMU has set the size: as it was`, async () => {
        await using one = await scratch(sourceBytes);
        assert.deepEqual(one.volume.creating, { sourceBytes });
        if (grown) {
          await truncate(one.path, MADE_BYTES);
          await writeAt(one.path, 4096, randomBytes(MIB));
        }
        assert.deepEqual(await undo(one.volume), ['image that was not finished is empty again: ']);
        const { size, blocks } = await stat(one.path);
        assert.deepEqual([size, blocks], [sourceBytes, 0]);
      });
    }
  }

  it('without a beginning nothing is touched', async () => {
    await using one = await scratch(MADE_BYTES);
    await writeAt(one.path, 4096, Buffer.from('header'));
    assert.deepEqual(await undo({ ...one.volume, creating: undefined }), []);
    assert.equal((await readFile(one.path)).toString('latin1', 4096, 4102), 'header');
  });

  it("a file that somebody's QEMU has open: left as it is", async () => {
    await using one = await scratch(MADE_BYTES);
    await writeAt(one.path, 4096, Buffer.from('header'));
    const lock = spawn('flock', ['--exclusive', '--no-fork', one.path, 'sh', '-c', 'echo locked; read -r end']);
    const exited = once(lock, 'exit');
    await once(lock.stdout, 'data');
    assert.match((await undo(one.volume)).join(), /another process holds a lock/);
    lock.stdin.end();
    await exited;
    assert.equal((await readFile(one.path)).toString('latin1', 4096, 4102), 'header');
  });

  const others: readonly (readonly [string, RegExp, (path: string) => Promise<void>, number?])[] = [
    ['a byte behind the header', /data behind its header/, (path) => writeAt(path, MADE_BYTES - 1, Buffer.from('x'))],
    ['another size', /has \d+ bytes, neither/, (path) => truncate(path, MADE_BYTES + 512)],
    [
      'another file of that name',
      /something else has its name/,
      async (path) => {
        await writeFile(`${path}.new`, Buffer.alloc(MADE_BYTES));
        await rename(`${path}.new`, path);
      },
    ],
    ['something else at the start', /begins with something else/, (path) => writeAt(path, 1024, Buffer.from('fs'))],
    ['a file that is gone', /ENOENT/, (path) => rename(path, `${path}.gone`)],
    ['more than may be looked through', /too long/, () => Promise.resolve(), MIB],
  ];
  for (const [what, said, change, scanBytesMax] of others) {
    it(`${what}: left as it is`, async () => {
      await using one = await scratch(MADE_BYTES);
      await writeAt(one.path, 4096, Buffer.from('header'));
      await change(one.path);
      const before = await readFile(one.path).catch(() => undefined);
      const [message = '', ...more] = await undo(one.volume, scanBytesMax);
      assert.match(message, said);
      assert.match(message, /^image that was not finished left as it is/);
      assert.deepEqual(more, []);
      assert.deepEqual(await readFile(one.path).catch(() => undefined), before);
    });
  }
});
