import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { luks1OverheadBytes } from '../../src/volume/model/luks1.ts';
import { fileIdentity } from '../../src/volume/source/open-file.ts';
import { configWith } from '../../src/config.ts';
import { beforeCreation } from '../../src/volume/image-bytes.ts';
import { leftByQemu, undoCreation, type CreatingVolume } from '../../src/volume/image-undo.ts';
import { fileHash, readAt, writeAt } from '../support/confidential.ts';
import { loopDevice } from '../support/loop-device.ts';

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
  const encryption = { kind: 'host-luks', cipher: 'aes-256', hash: 'sha256' };
  const backingIdentity = fileIdentity(await stat(path));
  // Only what the undo reads.
  const identity = { resolvedPath: path, backingIdentity, spec: { encryption } };
  const creating = await beforeCreation(path, backingIdentity);
  const volume = { id: 'v', identity, sizeBytes: GUEST_BYTES, creating } as unknown as CreatingVolume;
  return { path, volume, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

/** The messages that the undo logged. */
async function undo(volume: CreatingVolume, scanBytesMax = 64 * MIB, left?: string): Promise<readonly string[]> {
  const logged: string[] = [];
  await undoCreation(volume, {
    limits: configWith({}),
    scanBytesMax,
    left,
    log: createLogger('info', { write: (line) => void logged.push(line) }),
  });
  return logged.map((line) => {
    const { msg, problem = '' } = JSON.parse(line) as { msg: string; problem?: string };
    return `${msg}: ${problem}`;
  });
}

/** A LUKS1 header as QEMU writes it, but for digest, salts and UUID; with what a foreign one has instead. */
function luks1Header(other: { cipher?: string; hash?: string; payloadSectors?: number; used?: number[] } = {}): Buffer {
  const { cipher = 'aes', hash = 'sha256', payloadSectors = HEADER_BYTES / 512, used = [0] } = other;
  const header = Buffer.alloc(592);
  header.write('LUKS\xba\xbe\x00\x01', 0, 'latin1');
  header.write(cipher, 8);
  header.write('xts-plain64', 40);
  header.write(hash, 72);
  header.writeUInt32BE(payloadSectors, 104);
  header.writeUInt32BE(64, 108);
  header.write(randomUUID(), 168);
  for (let slot = 0; slot < 8; slot += 1) {
    header.writeUInt32BE(used.includes(slot) ? 0x00ac71f3 : 0x0000dead, 208 + slot * 48);
  }
  return header;
}

const FOREIGN: readonly (readonly [string, Buffer])[] = [
  ['LUKS2', Buffer.from('LUKS\xba\xbe\x00\x02', 'latin1')],
  ['LUKS1 of another layout', luks1Header({ payloadSectors: 4096 })],
  ['LUKS1 of another cipher', luks1Header({ cipher: 'serpent' })],
  ['LUKS1 of another hash', luks1Header({ hash: 'sha1' })],
  ['LUKS1 with a second key', luks1Header({ used: [0, 1] })],
  ['a file system', Buffer.concat([Buffer.alloc(1080), Buffer.from([0x53, 0xef])])],
];

describe('the undo of making an image', () => {
  for (const sourceBytes of [0, MIB, MADE_BYTES, 8 * MIB]) {
    for (const grown of [false, true]) {
      it(`${sourceBytes} bytes, ${grown ? 'after' : 'before'} QEMU has set the size: as it was`, async () => {
        await using one = await scratch(sourceBytes);
        const { birthtimeMs: bornMs } = await stat(one.path);
        assert.deepEqual(one.volume.creating, { sourceBytes, bornMs });
        if (grown) {
          await truncate(one.path, MADE_BYTES);
          await writeAt(one.path, 0, luks1Header());
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

  it('another file that was given the same inode: left as it is', async () => {
    await using one = await scratch(MADE_BYTES);
    await writeAt(one.path, 0, luks1Header());
    const before = await fileHash(one.path);
    const creating = { sourceBytes: MADE_BYTES, bornMs: (await stat(one.path)).birthtimeMs - 1000 };
    assert.match((await undo({ ...one.volume, creating })).join(), /another file has its name and its inode/);
    assert.equal(await fileHash(one.path), before);
  });

  for (const [what, header] of FOREIGN) {
    it(`a file with the header of somebody else, ${what}: left as it is`, async () => {
      await using one = await scratch(MADE_BYTES);
      await writeAt(one.path, 0, header);
      const before = await fileHash(one.path);
      assert.match((await undo(one.volume)).join(), /begins with something else/);
      assert.equal(await fileHash(one.path), before);
    });
  }

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

await describe('the undo of making an image on a block device', async () => {
  const probe = await loopDevice(8 * MIB);
  const skip = probe === undefined && 'no loop device can be had here (needs root and losetup)';
  await probe?.[Symbol.asyncDispose]();

  interface Device extends AsyncDisposable {
    readonly path: string;
    readonly volume: CreatingVolume;
    /** What leftByQemu sees, with a QEMU that lists this. */
    readonly left: (jobs?: readonly object[], nodes?: readonly string[]) => Promise<string | undefined>;
  }

  /** A device that is to become an image, and of which QEMU has written this much. */
  async function device(header: Buffer, keyMaterial = randomBytes(200_000)): Promise<Device> {
    const loop = await loopDevice(8 * MIB);
    assert.ok(loop !== undefined);
    const { path } = loop;
    const encryption = { kind: 'host-luks', cipher: 'aes-256', hash: 'sha256' };
    const backingIdentity = fileIdentity(await stat(path));
    const identity = { resolvedPath: path, backingIdentity, spec: { encryption } };
    const creating = await beforeCreation(path, backingIdentity);
    // Only what the undo reads.
    const volume = { id: 'v', identity, sizeBytes: GUEST_BYTES, creating } as unknown as CreatingVolume;
    await writeAt(path, 0, header);
    await writeAt(path, 4096, keyMaterial);
    await writeAt(path, 5 * MIB, Buffer.from('behind'));
    const names = { job: 'job', protocol: 'file' };
    const left: Device['left'] = async (jobs = [], nodes = ['file']) => {
      const run = (command: string): Promise<unknown> =>
        Promise.resolve(command === 'query-jobs' ? jobs : nodes.map((name) => ({ 'node-name': name })));
      return await leftByQemu(
        { run } as unknown as Parameters<typeof leftByQemu>[0],
        { ...volume, names },
        configWith({}),
      );
    };
    return { path, volume, left, [Symbol.asyncDispose]: () => loop[Symbol.asyncDispose]() };
  }

  for (const [what, header] of [
    ['with its header', luks1Header()],
    ['without a header yet', Buffer.alloc(0)],
  ] as const) {
    it(`what QEMU has left, ${what}: empty again, and nothing else`, { skip }, async () => {
      await using one = await device(header);
      assert.deepEqual(await undo(one.volume, MIB, await one.left()), ['image that was not finished is empty again: ']);
      const bytes = await readAt(one.path, 0, HEADER_BYTES);
      assert.ok(bytes.every((byte) => byte === 0));
      assert.equal((await readAt(one.path, 5 * MIB, 6)).toString(), 'behind');
    });
  }

  it('nothing was written to it: nothing is left to undo', { skip }, async () => {
    await using one = await device(Buffer.alloc(0), Buffer.alloc(0));
    assert.deepEqual(await undo(one.volume), ['image that was not finished is empty again: ']);
  });

  it('QEMU has let go of it before anybody looked: left as it is', { skip }, async () => {
    await using one = await device(luks1Header());
    const before = await fileHash(one.path);
    assert.equal(await one.left([], []), undefined);
    assert.match(
      (await undo(one.volume)).join(),
      /^image that was not finished left as it is: QEMU no longer had it open/,
    );
    assert.equal(await fileHash(one.path), before);
  });

  it('while QEMU still works on it, what is there says nothing', { skip }, async () => {
    await using one = await device(luks1Header());
    assert.equal(await one.left([{ id: 'job', status: 'running' }]), undefined);
    assert.notEqual(await one.left([{ id: 'job', status: 'concluded' }]), undefined);
  });

  it('somebody has written to it since: left as it is', { skip }, async () => {
    await using one = await device(luks1Header());
    const left = await one.left();
    await writeAt(one.path, MIB, Buffer.from('mine'));
    const before = await fileHash(one.path);
    assert.match((await undo(one.volume, MIB, left)).join(), /somebody has written to it since/);
    assert.equal(await fileHash(one.path), before);
  });

  for (const [what, header] of FOREIGN) {
    it(`the header of somebody else, ${what}: left as it is`, { skip }, async () => {
      await using one = await device(header);
      const before = await fileHash(one.path);
      assert.match((await undo(one.volume, MIB, await one.left())).join(), /begins with something else/);
      assert.equal(await fileHash(one.path), before);
    });
  }
});
