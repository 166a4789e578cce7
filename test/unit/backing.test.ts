import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { link, mkdir, mkdtemp, open, realpath, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ShimError } from '../../src/base/errors.ts';
import { configWith, type Config } from '../../src/config.ts';
import { BackingClaims } from '../../src/volume/claims.ts';
import { resolveAllowed } from '../../src/volume/source/open-file.ts';
import type { Inspection } from '../../src/volume/source/module.ts';
import type { SourceSpec } from '../../src/volume/source/registry.ts';
import { inspectSource, type VolumeSpec } from '../../src/volume/spec.ts';
import { BASE_SPEC } from '../support/base-spec.ts';

const MIB = 1024 * 1024;

/** Those that have a path. */
type LocalSource = Extract<SourceSpec, { readonly path: string }>;

/** A directory of volumes, one root of the allowed kind, and one that is not. */
class Scratch implements AsyncDisposable {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Scratch> {
    const scratch = new Scratch(await realpath(await mkdtemp(join(tmpdir(), 'qshim-backing-'))));
    for (const name of ['volumes', 'volumes-other', 'secret']) await mkdir(join(scratch.directory, name));
    return scratch;
  }

  get root(): string {
    return join(this.directory, 'volumes');
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  async file(name: string, bytes = MIB): Promise<string> {
    await writeFile(this.path(name), '');
    await truncate(this.path(name), bytes);
    return this.path(name);
  }

  inspect(
    path: string,
    changes: Partial<VolumeSpec> & { readonly kind?: LocalSource['kind'] } = {},
  ): Promise<Inspection<SourceSpec>> {
    const { kind = 'raw-file', ...rest } = changes;
    return inspectSource({ ...SPEC, ...rest, source: { kind, path } }, limitsFor(this.root));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

const limitsFor = (root: string): Config => configWith({ allowed_roots: [root], empty_scan_bytes_max: 2 ** 20 });

const SPEC: VolumeSpec = { ...BASE_SPEC, source: { kind: 'raw-file', path: '/nowhere' } };

const isRoot = process.getuid?.() === 0;

describe('what lies behind a volume: files', () => {
  it('a raw file gives its size, its resolved path, and one identity for all its names', async () => {
    await using scratch = await Scratch.make();
    const path = await scratch.file('volumes/a.raw');
    await link(path, scratch.path('volumes/hard.raw'));
    await symlink('a.raw', scratch.path('volumes/soft.raw'));
    const found = await scratch.inspect(path);
    assert.equal(found.sizeBytes, MIB);
    assert.deepEqual(found.resolved, { kind: 'raw-file', path });
    assert.match(found.identity, /^file:\d+:\d+$/);
    assert.deepEqual(await scratch.inspect(scratch.path('volumes/soft.raw')), found);
    assert.equal((await scratch.inspect(scratch.path('volumes/hard.raw'))).identity, found.identity);
    const other = await scratch.file('volumes/b.raw');
    assert.notEqual((await scratch.inspect(other)).identity, found.identity);
  });

  it('what is missing, or points nowhere, is FAILED_PRECONDITION', async () => {
    await using scratch = await Scratch.make();
    await symlink('nowhere', scratch.path('volumes/dangling'));
    await scratch.file('volumes/a.raw');
    for (const name of ['volumes/missing', 'volumes/dangling', 'volumes/a.raw/below']) {
      await assert.rejects(scratch.inspect(scratch.path(name)), {
        code: 'FAILED_PRECONDITION',
        reason: 'SOURCE_NOT_FOUND',
      });
    }
  });

  it('symbolic links in a circle', async () => {
    await using scratch = await Scratch.make();
    await symlink('b', scratch.path('volumes/a'));
    await symlink('a', scratch.path('volumes/b'));
    await assert.rejects(scratch.inspect(scratch.path('volumes/a')), { reason: 'INVALID_PATH' });
  });

  it('outside the roots, by name, by symbolic link, or by a root that is only a prefix', async () => {
    await using scratch = await Scratch.make();
    await scratch.file('secret/key');
    await scratch.file('volumes-other/b.raw');
    await symlink('../secret/key', scratch.path('volumes/innocent.raw'));
    await symlink('../secret', scratch.path('volumes/folder'));
    for (const name of ['secret/key', 'volumes-other/b.raw', 'volumes/innocent.raw', 'volumes/folder/key']) {
      await assert.rejects(scratch.inspect(scratch.path(name)), (error) => {
        assert.ok(error instanceof ShimError);
        assert.deepEqual([error.code, error.reason], ['PERMISSION_DENIED', 'OUTSIDE_ALLOWED_ROOTS']);
        assert.ok(error.message.includes(scratch.path(name)), 'the message names what was asked for');
        return true;
      });
    }
  });

  it('a root may itself be a symbolic link, be "/", or not exist', async () => {
    await using scratch = await Scratch.make();
    const path = await scratch.file('volumes/a.raw');
    await symlink('volumes', scratch.path('alias'));
    for (const roots of [[scratch.path('alias')], ['/'], ['/nowhere', scratch.root], [`${scratch.root}/`]]) {
      assert.equal(await resolveAllowed('field', path, roots), path, roots.join());
    }
    await assert.rejects(resolveAllowed('field', path, ['/nowhere']), { reason: 'OUTSIDE_ALLOWED_ROOTS' });
  });

  it('what is no regular file is refused by its kind', async () => {
    await using scratch = await Scratch.make();
    await mkdir(scratch.path('volumes/dir'));
    assert.equal(spawnSync('mkfifo', [scratch.path('volumes/fifo')]).status, 0);
    for (const [name, kind] of [
      ['volumes/dir', 'a directory'],
      ['volumes/fifo', 'a FIFO'],
    ] as const) {
      for (const source of ['raw-file', 'qcow2-file', 'block-device'] as const) {
        await assert.rejects(scratch.inspect(scratch.path(name), { kind: source }), (error) => {
          assert.ok(error instanceof ShimError);
          assert.deepEqual([error.code, error.reason], ['INVALID_ARGUMENT', 'WRONG_FILE_TYPE']);
          assert.ok(error.message.includes(kind), error.message);
          return true;
        });
      }
    }
    const spec = { ...SPEC, source: { kind: 'raw-file', path: '/dev/null' } } as const;
    await assert.rejects(inspectSource(spec, limitsFor('/dev')), {
      reason: 'WRONG_FILE_TYPE',
      message: /character device/,
    });
    const file = await scratch.file('volumes/a.raw');
    await assert.rejects(scratch.inspect(file, { kind: 'block-device' }), {
      reason: 'WRONG_FILE_TYPE',
      message: /regular file/,
    });
  });

  it('emptiness is proven, never supposed: one byte anywhere is data, and what is not read is left open', async () => {
    await using scratch = await Scratch.make();
    const mount = { fsType: 'ext4', mountPoint: '/a', options: [], format: 'if_empty' } as const;
    const seen = async (path: string, kind: LocalSource['kind'] = 'raw-file', changes: Partial<VolumeSpec> = {}) =>
      (await scratch.inspect(path, { kind, mount, ...changes })).emptiness;
    const write = async (path: string, content: string | Buffer, at: number): Promise<void> => {
      await using handle = await open(path, 'r+');
      await handle.write(Buffer.from(content), 0, content.length, at);
    };
    const path = await scratch.file('volumes/a.raw');
    assert.equal(await seen(path), 'zero', 'a hole from end to end');
    assert.equal(await seen(path, 'raw-file', { mount: undefined }), 'look', 'nobody asks');
    await write(path, Buffer.alloc(4096), MIB / 2);
    assert.equal(await seen(path), 'zero', 'zeroes that are written');
    await write(path, 'x', MIB / 2);
    assert.equal(await seen(path), 'data');
    const guest = { kind: 'guest-luks2', mode: 'create', key: { kind: 'ephemeral' }, integrity: false } as const;
    const encryption = { ...guest, sectorSize: 512, uuid: '' } as const;
    assert.equal(await seen(path, 'raw-file', { mount: undefined, encryption }), 'data', 'for encryption too');
    await truncate(path, 2 * MIB);
    assert.equal(await seen(path), 'look', 'longer than empty_scan_bytes_max');

    const image = scratch.path('volumes/b.qcow2');
    spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
    assert.equal(await seen(image, 'qcow2-file'), 'zero', 'its tables name no cluster');
    const io = (command: string): void => {
      assert.equal(spawnSync('qemu-io', ['-f', 'qcow2', '-c', command, image]).status, 0);
    };
    io('write -z 32M 64k');
    assert.equal(await seen(image, 'qcow2-file'), 'zero', 'a cluster that reads as zeroes');
    io('write -P 65 40M 512');
    assert.equal(await seen(image, 'qcow2-file'), 'look', 'a cluster that is there');
    await truncate(image, 70_000);
    assert.equal(await seen(image, 'qcow2-file'), 'look', 'tables that are cut off');
  });

  it('whether it ends with a whole sector is seen; one that does not is nothing for io_uring', async () => {
    await using scratch = await Scratch.make();
    const path = scratch.path('volumes/a.qcow2');
    spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, '64M']);
    for (const [bytes, whole] of [
      [70_000, false],
      [70_144, true],
    ] as const) {
      await truncate(path, bytes);
      assert.equal((await scratch.inspect(path, { kind: 'qcow2-file' })).endsInSector, whole);
      const asked = scratch.inspect(path, { kind: 'qcow2-file', aio: 'io_uring' });
      if (whole) await asked;
      else await assert.rejects(asked, { code: 'FAILED_PRECONDITION', reason: 'SOURCE_NOT_USABLE' });
    }
  });

  it('sizes must suit the logical block size', async () => {
    await using scratch = await Scratch.make();
    for (const [bytes, logicalBlockSize] of [
      [0, 512],
      [513, 512],
      [MIB + 512, 4096],
    ] as const) {
      const path = await scratch.file('volumes/a.raw', bytes);
      await assert.rejects(scratch.inspect(path, { logicalBlockSize }), {
        code: 'INVALID_ARGUMENT',
        reason: 'INVALID_SIZE',
      });
    }
    const path = await scratch.file('volumes/a.raw', MIB + 512);
    assert.equal((await scratch.inspect(path)).sizeBytes, MIB + 512);
  });

  it(
    'a file that may only be read serves a read-only volume',
    { skip: isRoot && 'root may write everything' },
    async () => {
      await using scratch = await Scratch.make();
      const path = await scratch.file('volumes/a.raw');
      await (await open(path)).chmod(0o400);
      assert.equal((await scratch.inspect(path, { readOnly: true })).sizeBytes, MIB);
      await assert.rejects(scratch.inspect(path), { code: 'PERMISSION_DENIED', reason: 'SOURCE_NOT_ACCESSIBLE' });
    },
  );
});

/** Fields of docs/interop/qcow2.txt in QEMU's sources, at their offsets. */
interface Header {
  readonly magic?: number;
  readonly version?: number;
  readonly backingOffset?: bigint;
  readonly sizeBytes?: bigint;
  readonly crypt?: number;
  readonly incompatible?: bigint;
  readonly length?: number;
}

function qcow2(header: Header = {}): Buffer {
  const bytes = Buffer.alloc(512);
  bytes.writeUInt32BE(header.magic ?? 0x514649fb, 0);
  bytes.writeUInt32BE(header.version ?? 3, 4);
  bytes.writeBigUInt64BE(header.backingOffset ?? 0n, 8);
  bytes.writeBigUInt64BE(header.sizeBytes ?? 8n * 1024n * 1024n, 24);
  bytes.writeUInt32BE(header.crypt ?? 0, 32);
  bytes.writeBigUInt64BE(header.incompatible ?? 0n, 72);
  return bytes.subarray(0, header.length ?? bytes.length);
}

describe('what lies behind a volume: qcow2 images', () => {
  async function inspect(header: Header): Promise<Inspection<SourceSpec>> {
    await using scratch = await Scratch.make();
    const path = scratch.path('volumes/a.qcow2');
    await writeFile(path, qcow2(header));
    return await scratch.inspect(path, { kind: 'qcow2-file' });
  }

  it('the size is that of the disk, not of the file', async () => {
    for (const version of [2, 3]) assert.equal((await inspect({ version })).sizeBytes, 8 * MIB);
    assert.equal((await inspect({ sizeBytes: 2n ** 40n })).sizeBytes, 2 ** 40);
  });

  it('what names other files, or is encrypted, or is no qcow2, is refused', async () => {
    const CASES: readonly [Header, string][] = [
      [{ magic: 0x7f454c46 }, 'NOT_QCOW2'],
      [{ length: 40 }, 'NOT_QCOW2'],
      [{ length: 0 }, 'NOT_QCOW2'],
      [{ backingOffset: 4096n }, 'QCOW2_BACKING_FILE'],
      [{ backingOffset: 2n ** 32n }, 'QCOW2_BACKING_FILE'],
      [{ incompatible: 4n }, 'QCOW2_DATA_FILE'],
      [{ incompatible: 5n }, 'QCOW2_DATA_FILE'],
      [{ crypt: 1 }, 'QCOW2_ENCRYPTED'],
      [{ crypt: 2 }, 'QCOW2_ENCRYPTED'],
      [{ sizeBytes: 0n }, 'INVALID_SIZE'],
      [{ sizeBytes: 513n }, 'INVALID_SIZE'],
    ];
    for (const [header, reason] of CASES) {
      await assert.rejects(inspect(header), { code: 'INVALID_ARGUMENT', reason }, JSON.stringify(header, showBigInt));
    }
  });

  it('version 2 has no feature bits: the same bytes mean nothing there', async () => {
    assert.equal((await inspect({ version: 2, incompatible: 4n })).sizeBytes, 8 * MIB);
  });

  it('other incompatible features are for QEMU to judge', async () => {
    assert.equal((await inspect({ incompatible: 1n })).sizeBytes, 8 * MIB);
  });

  it('a real qcow2 image', { skip: spawnSync('qemu-img', ['--version']).status !== 0 && 'no qemu-img' }, async () => {
    await using scratch = await Scratch.make();
    const path = scratch.path('volumes/a.qcow2');
    assert.equal(spawnSync('qemu-img', ['create', '-f', 'qcow2', path, '16M']).status, 0);
    assert.equal((await scratch.inspect(path, { kind: 'qcow2-file' })).sizeBytes, 16 * MIB);
    const over = scratch.path('volumes/over.qcow2');
    assert.equal(spawnSync('qemu-img', ['create', '-f', 'qcow2', '-b', path, '-F', 'qcow2', over]).status, 0);
    await assert.rejects(scratch.inspect(over, { kind: 'qcow2-file' }), { reason: 'QCOW2_BACKING_FILE' });
  });
});

function showBigInt(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value;
}

describe('what lies behind a volume: block devices', () => {
  it('a loop device gives its size and its number', async (context) => {
    await using scratch = await Scratch.make();
    const image = await scratch.file('volumes/disk.img', 3 * MIB);
    const attached = spawnSync('losetup', ['--find', '--show', image], { encoding: 'utf8' });
    if (attached.status !== 0) {
      context.skip(`no loop device to be had: ${attached.error?.message ?? attached.stderr.trim()}`);
      return;
    }
    const device = attached.stdout.trim();
    using _detached = { [Symbol.dispose]: () => void spawnSync('losetup', ['--detach', device]) };
    const spec = { ...SPEC, source: { kind: 'block-device', path: device } } as const;
    const found = await inspectSource(spec, limitsFor('/dev'));
    assert.equal(found.sizeBytes, 3 * MIB);
    assert.match(found.identity, /^block:7:\d+$/);
    await symlink(device, scratch.path('volumes/link'));
    assert.deepEqual(
      await inspectSource(
        { ...spec, source: { kind: 'block-device', path: scratch.path('volumes/link') } },
        limitsFor('/dev'),
      ),
      found,
    );
    await assert.rejects(inspectSource({ ...spec, source: { kind: 'raw-file', path: device } }, limitsFor('/dev')), {
      reason: 'WRONG_FILE_TYPE',
    });
    await assert.rejects(inspectSource(spec, limitsFor(scratch.root)), { reason: 'OUTSIDE_ALLOWED_ROOTS' });
  });
});

describe('backing claims', () => {
  const backing = { described: '/volumes/a.raw', identity: 'file:1:2' };

  it('readers share, a writer stands alone, and the refusal names the holder', () => {
    const claims = new BackingClaims();
    claims.claim(backing, 'reader one', false);
    claims.claim(backing, 'reader two', false);
    assert.throws(() => claims.claim(backing, 'writer', true), {
      code: 'FAILED_PRECONDITION',
      reason: 'BACKING_IN_USE',
      message: /reader one/,
    });
    claims.release(backing.identity, 'reader one');
    assert.throws(() => claims.claim(backing, 'writer', true), {
      metadata: { path: backing.described, holder: 'reader two' },
    });
    claims.release(backing.identity, 'reader two');
    claims.claim(backing, 'writer', true);
    assert.throws(() => claims.claim(backing, 'reader', false), { reason: 'BACKING_IN_USE' });
    assert.throws(() => claims.claim(backing, 'other writer', true), { reason: 'BACKING_IN_USE' });
  });

  it('against a plain model: never a writer beside another holder', () => {
    const step = fc.record({
      act: fc.constantFrom('claim' as const, 'release' as const),
      owner: fc.constantFrom('a', 'b', 'c'),
      identity: fc.constantFrom('file:1:1', 'file:1:2'),
      writable: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const claims = new BackingClaims();
        const held = new Map<string, boolean>();
        for (const { act, owner, identity, writable } of steps) {
          const key = `${identity} ${owner}`;
          if (act === 'release') {
            claims.release(identity, owner);
            held.delete(key);
            continue;
          }
          const others = [...held].filter(([each]) => each.startsWith(`${identity} `) && each !== key);
          const clash = others.some(([, otherWritable]) => otherWritable || writable);
          const claim = (): void => claims.claim({ ...backing, identity }, owner, writable);
          if (clash) assert.throws(claim, { reason: 'BACKING_IN_USE' });
          else {
            claim();
            held.set(key, writable);
          }
        }
      }),
    );
  });
});
