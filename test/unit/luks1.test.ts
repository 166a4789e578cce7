import assert from 'node:assert/strict';
import { mkdtemp, open, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { missingCommands } from '../../scripts/lib/packages.ts';
import type { HostLuksSpec } from '../../src/volume/model/encryption.ts';
import { LUKS1_HEADER_BYTES, lookForLuks, luks1OverheadBytes, type Luks1Header } from '../../src/volume/model/luks1.ts';
import { inspectLuks, readLuks1 } from '../../src/volume/luks-image.ts';
import { fileIdentity } from '../../src/volume/source/open-file.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { makeImage } from '../support/luks-tool.ts';

const MIB = 1024 * 1024;
const SCAN = 64 * MIB;
const SPEC: HostLuksSpec = {
  kind: 'host-luks',
  key: { kind: 'file', path: '/keys/a' },
  format: 'if_empty',
  sizeBytes: 0,
  cipher: 'aes-256',
  hash: 'sha256',
  iterationMs: 100,
  uuid: '',
};

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'qshim-luks1-'));
});
after(async () => await rm(directory, { recursive: true }));

async function inspect(
  path: string,
  changes: Partial<HostLuksSpec> = {},
  scanBytesMax = SCAN,
): ReturnType<typeof inspectLuks> {
  await using handle = await open(path, 'r');
  const { size, blocks } = await handle.stat();
  const source = { path, handle, sizeBytes: size, allocatedBytes: blocks * 512 };
  return await inspectLuks(source, { ...SPEC, ...changes }, { scanBytesMax, formats: true });
}

async function sparse(name: string, bytes: number, ...writes: readonly (readonly [number, Buffer])[]): Promise<string> {
  const path = join(directory, name);
  await using handle = await open(path, 'w');
  await handle.truncate(bytes);
  for (const [offset, content] of writes) await handle.write(content, 0, content.length, offset);
  return path;
}

const refused = (reason: string): ((error: unknown) => boolean) => shimFailure('FAILED_PRECONDITION', reason);

describe('a source that may become an encrypted image', () => {
  it('a hole from end to end is empty, however long, and so are zeroes that can be read', async () => {
    const long = await sparse('long', 1024 * MIB);
    assert.deepEqual(await inspect(long), { sizeBytes: 1024 * MIB - 2_068_480, blank: true, emptiness: 'noise' });
    const zeroes = await sparse('zeroes', 8 * MIB, [4096, Buffer.alloc(4096)]);
    assert.equal((await inspect(zeroes)).blank, true);
    await assert.rejects(inspect(zeroes, {}, MIB), refused('SOURCE_NOT_EMPTY'));
  });

  it('a source that is longer than asked for is not cut: the image fills it', async () => {
    const found = await inspect(await sparse('longer', 64 * MIB), { sizeBytes: 16 * MIB });
    assert.equal(found.sizeBytes, 64 * MIB - 2_068_480);
  });

  it('one byte anywhere makes it not empty', async () => {
    for (const offset of [0, 4 * MIB - 1, 4 * MIB, 8 * MIB - 1]) {
      const path = await sparse('byte', 8 * MIB, [offset, Buffer.from('x')]);
      await assert.rejects(inspect(path), refused('SOURCE_NOT_EMPTY'), `at ${offset}`);
    }
    // So short that a file system may keep it without a block.
    const short = await sparse('short', 100, [50, Buffer.from('x')]);
    await assert.rejects(inspect(short, { sizeBytes: MIB }), refused('SOURCE_NOT_EMPTY'));
  });

  it('only when it was asked for, and when there is room', async () => {
    await assert.rejects(inspect(await sparse('never', 8 * MIB), { format: 'never' }), refused('LUKS_NO_HEADER'));
    await assert.rejects(inspect(await sparse('small', MIB)), refused('SOURCE_TOO_SMALL'));
    // A file grows to what is asked for; it may have no length at all.
    assert.deepEqual(await inspect(await sparse('none', 0), { sizeBytes: MIB }), {
      sizeBytes: MIB,
      blank: true,
      emptiness: 'noise',
    });
  });
});

const headerOf = async (path: string): Promise<Luks1Header> => await readLuks1(path, fileIdentity(await stat(path)));

describe("headers of images that QEMU's own tool made", { skip: missingCommands(['qemu-img']).length > 0 }, () => {
  let path: string;
  let uuid: string;
  before(async () => {
    path = join(directory, 'made');
    await make(path, 'aes-256', 16 * MIB);
    ({ uuid } = await headerOf(path));
  });

  async function make(at: string, cipher: string, bytes: number): Promise<void> {
    const keyFile = join(directory, 'key');
    await writeFile(keyFile, 'words', { mode: 0o600 });
    const options = `key-secret=k,cipher-alg=${cipher},iter-time=10`;
    const secret = `secret,id=k,file=${keyFile}`;
    await makeImage(['--object', secret, '-o', options, at, String(bytes)]);
  }

  /** The image's first bytes, changed. */
  async function damaged(change: (bytes: Buffer) => void): Promise<string> {
    await using handle = await open(path, 'r');
    const bytes = Buffer.alloc(MIB * 4);
    await handle.read(bytes, 0, bytes.length, 0);
    change(bytes);
    return await sparse('damaged', 16 * MIB, [0, bytes]);
  }

  // The room depends on the key's length only; making an image takes a second of work.
  for (const cipher of ['aes-128', 'aes-192'] as const) {
    it(`${cipher}: the room that it takes is known beforehand`, async () => {
      const at = join(directory, `made-${cipher}`);
      await make(at, cipher, MIB);
      await using handle = await open(at, 'r');
      assert.equal((await handle.stat()).size - MIB, luks1OverheadBytes(cipher));
      assert.match((await headerOf(at)).cipher, new RegExp(`^${cipher.split('-')[0] ?? ''}-xts-plain64$`));
    });
  }

  it('is read, and its UUID and size can be insisted on', async () => {
    const header = await headerOf(path);
    assert.deepEqual(
      [header.cipher, header.hash, header.slots.filter(Boolean).length, header.slots.length],
      ['aes-xts-plain64', 'sha256', 1, 8],
    );
    assert.deepEqual(await inspect(path, { uuid, sizeBytes: 16 * MIB }), {
      sizeBytes: 16 * MIB,
      blank: false,
      emptiness: 'noise',
    });
    const written = await damaged((bytes) => bytes.fill('x', 3 * MIB, 3 * MIB + 1));
    assert.equal((await inspect(written)).emptiness, 'look');
    const other = '00000000-0000-4000-8000-000000000000';
    await assert.rejects(inspect(path, { uuid: other }), refused('LUKS_DEVICE_SWAPPED'));
    await assert.rejects(inspect(path, { sizeBytes: 16 * MIB + 512 }), refused('LUKS_DEVICE_TRUNCATED'));
  });

  it('a damaged header is damaged, and never empty', async () => {
    const changes: readonly ((bytes: Buffer) => void)[] = [
      (bytes) => bytes.writeUInt16BE(7, 6),
      (bytes) => bytes.fill(0, 8, 40),
      (bytes) => bytes.fill(0xff, 168, 204),
      (bytes) => bytes.writeUInt32BE(0, 104),
      (bytes) => bytes.writeUInt32BE(1, 208),
      (bytes) => bytes.writeUInt32BE(0xdead, 208),
      (bytes) => bytes.writeUInt32BE(1000, 108),
    ];
    for (const change of changes) {
      await assert.rejects(inspect(await damaged(change)), refused('LUKS_HEADER_DAMAGED'), String(change));
    }
    await assert.rejects(inspect(await damaged((bytes) => bytes.fill(0, 0, 8))), refused('SOURCE_NOT_EMPTY'));
    await assert.rejects(
      inspect(await damaged((bytes) => bytes.writeUInt16BE(2, 6))),
      refused('LUKS_VERSION_UNSUPPORTED'),
    );
    await assert.rejects(inspect(await sparse('cut', MIB, [0, await start()])), refused('LUKS_DEVICE_TRUNCATED'));
  });

  async function start(): Promise<Buffer> {
    await using handle = await open(path, 'r');
    const bytes = Buffer.alloc(LUKS1_HEADER_BYTES);
    await handle.read(bytes, 0, bytes.length, 0);
    return bytes;
  }

  it('no length of prefix is anything but a header, or nothing', async () => {
    const bytes = await start();
    for (let length = 0; length <= bytes.length; length += 1) {
      const { kind } = lookForLuks(bytes.subarray(0, length));
      assert.equal(kind, length < 8 ? 'none' : length < LUKS1_HEADER_BYTES ? 'damaged' : 'luks1', String(length));
    }
  });
});
