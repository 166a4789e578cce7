import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { link, mkdir, open, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { TestDaemon } from '../support/daemon.ts';
import {
  assertRefusal,
  refusal,
  refusedWithoutTrace,
  withoutHistory,
  worldState,
  type ExpectedRefusal,
} from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** Every kind of file that a volume cannot be made of, offered to a real daemon with a real VM. */

const MIB = 1024 * 1024;
const skip = await realVmSkipReason();
const run = promisify(execFile);
const FIELD = 'spec.source.path';

interface Row {
  readonly what: string;
  /** Makes the source and answers with its path. */
  readonly make: (daemon: TestDaemon) => Promise<string>;
  readonly kind?: 'rawFile' | 'qcow2File' | 'blockDevice';
  readonly spec?: VolumeSpec;
  readonly code: string;
  readonly reason: string;
  /** Part of the message, where field and value do not say it all. */
  readonly says?: RegExp;
}

async function qcow2(daemon: TestDaemon, name: string, options: readonly string[] = []): Promise<string> {
  const path = join(daemon.volumeDir, name);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, '16M']);
  return path;
}

/** A sound image in which some bytes were overwritten. */
async function qcow2With(daemon: TestDaemon, name: string, at: number, bytes: Buffer): Promise<string> {
  const path = await qcow2(daemon, name);
  await using file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, at);
  return path;
}

async function node(daemon: TestDaemon, name: string, ...numbers: string[]): Promise<string> {
  const path = join(daemon.volumeDir, name);
  await run('mknod', [path, ...numbers]);
  return path;
}

async function linkTo(daemon: TestDaemon, name: string, target: string): Promise<string> {
  const path = join(daemon.volumeDir, name);
  await symlink(target, path);
  return path;
}

const missing = { code: 'FAILED_PRECONDITION', reason: 'SOURCE_NOT_FOUND' };
const wrongType = { code: 'INVALID_ARGUMENT', reason: 'WRONG_FILE_TYPE' };
const invalidPath = { code: 'INVALID_ARGUMENT', reason: 'INVALID_PATH' };
const outside = { code: 'PERMISSION_DENIED', reason: 'OUTSIDE_ALLOWED_ROOTS' };
const invalidSize = { code: 'INVALID_ARGUMENT', reason: 'INVALID_SIZE' };

const paths: readonly Row[] = [
  { what: 'a missing file', make: (d) => Promise.resolve(join(d.volumeDir, 'nothing')), ...missing },
  {
    what: 'a file below a file',
    make: async (d) => join(await d.rawFile('plain'), 'below'),
    ...missing,
  },
  { what: 'a dangling symbolic link', make: (d) => linkTo(d, 'dangling', join(d.volumeDir, 'gone')), ...missing },
  {
    what: 'a symbolic link to itself',
    make: (d) => linkTo(d, 'loop', join(d.volumeDir, 'loop')),
    ...invalidPath,
  },
  {
    what: 'a file outside the roots',
    make: async (d) => {
      const path = join(d.directory, 'outside.raw');
      await writeFile(path, Buffer.alloc(4096));
      return path;
    },
    ...outside,
  },
  {
    what: 'a file in a directory whose name begins like a root',
    make: async (d) => {
      await mkdir(`${d.volumeDir}-other`);
      const path = join(`${d.volumeDir}-other`, 'x.raw');
      await writeFile(path, Buffer.alloc(4096));
      return path;
    },
    ...outside,
  },
  {
    what: 'a symbolic link in a root that points outside',
    make: async (d) => {
      await writeFile(join(d.directory, 'target.raw'), Buffer.alloc(4096));
      return linkTo(d, 'escape', join(d.directory, 'target.raw'));
    },
    ...outside,
    says: /target\.raw/,
  },
  {
    what: 'a file behind a directory link that points outside',
    make: async (d) => {
      await writeFile(join(d.directory, 'behind.raw'), Buffer.alloc(4096));
      return join(await linkTo(d, 'escape-dir', d.directory), 'behind.raw');
    },
    ...outside,
    says: /behind\.raw/,
  },
  { what: 'a path with ..', make: (d) => Promise.resolve(`${d.volumeDir}/../outside.raw`), ...invalidPath },
  {
    what: 'a path with .. that stays inside',
    make: async (d) => {
      await d.rawFile('inside.raw');
      return `${d.volumeDir}/../volumes/inside.raw`;
    },
    ...invalidPath,
  },
  { what: 'a relative path', make: () => Promise.resolve('volumes/x.raw'), ...invalidPath },
  { what: 'an empty path', make: () => Promise.resolve(''), ...invalidPath },
  { what: 'a path with NUL', make: (d) => Promise.resolve(`${d.volumeDir}/a\0b`), ...invalidPath },
];

const kinds: readonly Row[] = [
  {
    what: 'a directory',
    make: async (d) => {
      await mkdir(join(d.volumeDir, 'directory'));
      return join(d.volumeDir, 'directory');
    },
    ...wrongType,
    says: /is a directory/,
  },
  { what: 'the root itself', make: (d) => Promise.resolve(d.volumeDir), ...wrongType, says: /is a directory/ },
  { what: 'a FIFO', make: (d) => node(d, 'fifo', 'p'), ...wrongType, says: /is a FIFO/ },
  {
    what: 'a FIFO as a block device',
    kind: 'blockDevice',
    make: (d) => node(d, 'fifo-2', 'p'),
    ...wrongType,
    says: /is a FIFO/,
  },
  {
    what: 'a regular file as a block device',
    kind: 'blockDevice',
    make: (d) => d.rawFile('not-a-device.raw'),
    ...wrongType,
    says: /is a regular file/,
  },
  { what: 'an empty file', make: (d) => d.rawFile('empty.raw', 0), ...invalidSize, says: /0 bytes/ },
  { what: 'a file of 1000 bytes', make: (d) => d.rawFile('odd.raw', 1000), ...invalidSize, says: /1000 bytes/ },
  {
    what: 'a multiple of 512 with blocks of 4096',
    make: (d) => d.rawFile('sectors.raw', MIB + 512),
    spec: { logicalBlockSize: 4096 },
    ...invalidSize,
    says: /multiple of 4096/,
  },
  {
    what: 'a raw file as qcow2',
    kind: 'qcow2File',
    make: (d) => d.rawFile('raw-as.qcow2'),
    code: 'INVALID_ARGUMENT',
    reason: 'NOT_QCOW2',
  },
  {
    what: 'a file shorter than a qcow2 header',
    kind: 'qcow2File',
    make: async (d) => {
      await writeFile(join(d.volumeDir, 'short.qcow2'), Buffer.from('QFI\xfb', 'latin1'));
      return join(d.volumeDir, 'short.qcow2');
    },
    code: 'INVALID_ARGUMENT',
    reason: 'NOT_QCOW2',
  },
  {
    what: 'a qcow2 image with a backing file',
    kind: 'qcow2File',
    make: async (d) => qcow2(d, 'overlay.qcow2', ['-b', await d.rawFile('base.raw'), '-F', 'raw']),
    code: 'INVALID_ARGUMENT',
    reason: 'QCOW2_BACKING_FILE',
  },
  {
    what: 'a qcow2 image with an external data file',
    kind: 'qcow2File',
    make: (d) => qcow2(d, 'split.qcow2', ['-o', `data_file=${join(d.volumeDir, 'split.data')}`]),
    code: 'INVALID_ARGUMENT',
    reason: 'QCOW2_DATA_FILE',
  },
  {
    what: 'a qcow2 image of 0 bytes',
    kind: 'qcow2File',
    make: (d) => qcow2With(d, 'nothing.qcow2', 24, Buffer.alloc(8)),
    ...invalidSize,
  },
  {
    what: 'an encrypted qcow2 image',
    kind: 'qcow2File',
    make: (d) => qcow2With(d, 'secret.qcow2', 32, Buffer.from([0, 0, 0, 2])),
    code: 'INVALID_ARGUMENT',
    reason: 'QCOW2_ENCRYPTED',
  },
];

await describe('sources that cannot become a volume', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
    // What a first attach makes once (rings of io_uring, caches) is there before the first look.
    await daemon.client.attach({
      sandboxId: 'vm',
      volumeId: 'first',
      spec: { rawFile: { path: await daemon.rawFile('first.raw') } },
    });
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'first' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  async function offer(path: string, row: Omit<Row, 'what' | 'make'>): Promise<void> {
    const spec = { ...row.spec, [row.kind ?? 'rawFile']: { path } };
    const seen = await refusedWithoutTrace(daemon, () =>
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'bad', spec }),
    );
    const expected: ExpectedRefusal = { code: row.code, reason: row.reason, field: FIELD, value: path };
    assertRefusal(seen, expected);
    if (row.says !== undefined) assert.match(seen.message, row.says);
  }

  for (const row of [...paths, ...kinds]) {
    await it(`refuses ${row.what}`, async () => {
      await offer(await row.make(daemon), row);
    });
  }

  await it('refuses a path that is too long, and a name that is too long', async () => {
    const tooLong = `${daemon.volumeDir}/${'a/'.repeat(2100)}x`;
    const seen = await refusedWithoutTrace(daemon, () =>
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'bad', spec: { rawFile: { path: tooLong } } }),
    );
    assertRefusal(seen, { ...invalidPath, field: FIELD });
    assert.ok(seen.message.length < 500, 'a long value is shortened in the message');
    await offer(`${daemon.volumeDir}/${'n'.repeat(300)}`, { code: 'FAILED_PRECONDITION', reason: 'SOURCE_NOT_USABLE' });
  });

  await it('refuses a socket', async () => {
    const path = join(daemon.volumeDir, 'socket');
    await using server = createServer();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(path, resolve);
    await promise;
    await offer(path, { ...wrongType, says: /is a socket/ });
  });

  await it('refuses a character device, also as a block device', async (t) => {
    let path: string;
    try {
      path = await node(daemon, 'character', 'c', '1', '5');
    } catch {
      t.skip('device nodes cannot be made here');
      return;
    }
    await offer(path, { ...wrongType, says: /is a character device/ });
    await offer(path, { ...wrongType, kind: 'blockDevice', says: /is a character device/ });
  });

  await it('refuses a block device as a raw file, and one that has no driver', async (t) => {
    let path: string;
    try {
      path = await node(daemon, 'block', 'b', '240', '77');
    } catch {
      t.skip('device nodes cannot be made here');
      return;
    }
    await offer(path, { ...wrongType, says: /is a block device/ });
    const seen = await refusedWithoutTrace(daemon, () =>
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'bad', spec: { blockDevice: { path } } }),
    );
    // A container's device rules answer before the missing driver does.
    assert.match(
      `${seen.code} ${seen.reason}`,
      /^(FAILED_PRECONDITION SOURCE_NOT_USABLE|PERMISSION_DENIED SOURCE_NOT_ACCESSIBLE)$/,
    );
  });

  await it('undoes an attach of an image that only QEMU finds unsound', async () => {
    // An incompatible feature that no version knows: the header looks right, blockdev-add fails.
    const path = await qcow2With(daemon, 'future.qcow2', 72, Buffer.from([0x10, 0, 0, 0, 0, 0, 0, 0]));
    await failsInQemu(path);
  });

  await it('knows a file by its inode: a second writer is refused under any name', async () => {
    const path = await daemon.rawFile('names.raw');
    const hard = join(daemon.volumeDir, 'hard.raw');
    await link(path, hard);
    const soft = await linkTo(daemon, 'soft.raw', path);
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'holder', spec: { rawFile: { path } } });
    for (const name of [path, hard, soft]) {
      for (const readOnly of [false, true]) {
        const seen = await refusedWithoutTrace(daemon, () =>
          daemon.client.attach({ sandboxId: 'vm', volumeId: 'second', spec: { rawFile: { path: name }, readOnly } }),
        );
        assertRefusal(seen, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });
        assert.match(seen.message, /volume holder/);
        assert.match(seen.metadata['holder'] ?? '', /volume holder .* sandbox vm/);
      }
    }
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'holder' });
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'second', spec: { rawFile: { path: hard } } });
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'second' });
  });

  async function failsInQemu(path: string): Promise<void> {
    const before = withoutHistory(await worldState(daemon));
    const seen = await refusal(
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'bad', spec: { qcow2File: { path } } }),
    );
    assertRefusal(seen, { code: 'FAILED_PRECONDITION', reason: 'SOURCE_NOT_USABLE' });
    assert.ok(seen.message.includes(path), seen.message);
    assert.deepEqual(withoutHistory(await worldState(daemon)), before);
    const volume = await daemon.client.getVolume('vm', 'bad');
    assert.equal(volume.state, 'VOLUME_STATE_REMOVED');
    assert.equal(volume.cause?.reason, 'SOURCE_NOT_USABLE');
  }
});
