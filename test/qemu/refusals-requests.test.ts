import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import type { Reason } from '../../src/base/reasons.ts';
import type { SandboxSpec } from '../../src/grpc/generated/qshim/v1/SandboxSpec.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { call, TestDaemon, type ApiClient } from '../support/daemon.ts';
import { assertRefusal, isServiceError, refusedWithoutTrace, worldState } from '../support/errors.ts';
import { RawClient, firstOf } from '../support/raw-client.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** Requests that are wrong in themselves, sent to a real daemon with a real VM. */

const skip = await realVmSkipReason();
const REQUEST_BYTES_MAX = 65_536;
const UNKNOWN_ENUM_NUMBER = 99;

const badIds: readonly (readonly [what: string, id: string])[] = [
  ['an empty id', ''],
  ['an id of 65 characters', 'a'.repeat(65)],
  ['an id of 100000 characters', 'a'.repeat(50_000)],
  ['an id with a slash', 'a/b'],
  ['an id that climbs', '../vm'],
  ['an id of two dots', '..'],
  ['an id with a blank', 'a b'],
  ['an id with a line break', 'vm\n'],
  ['an id with NUL', 'vm\0'],
  ['an id with a comma', 'vm,x'],
  ['an id that begins like an option', '-vm'],
  ['an id with a letter beyond ASCII', 'vü'],
];

type IdCall = readonly [method: string, field: string, act: (client: ApiClient, id: string) => Promise<unknown>];
const spec: VolumeSpec = { rawFile: { path: '/nowhere' } };
const idCalls: readonly IdCall[] = [
  ['Create', 'sandbox_id', (c, id) => c.createSandbox({ sandboxId: id })],
  ['Get', 'sandbox_id', (c, id) => c.getSandbox(id)],
  ['Stop', 'sandbox_id', (c, id) => c.stopSandbox({ sandboxId: id })],
  ['Delete', 'sandbox_id', (c, id) => c.deleteSandbox(id)],
  ['Exec', 'sandbox_id', (c, id) => c.exec(id, 'true')],
  ['Attach', 'sandbox_id', (c, id) => c.attach({ sandboxId: id, volumeId: 'v', spec })],
  ['Detach', 'sandbox_id', (c, id) => c.detach({ sandboxId: id, volumeId: 'v' })],
  ['Get of a volume', 'sandbox_id', (c, id) => c.getVolume(id, 'v')],
  ['Attach', 'volume_id', (c, id) => c.attach({ sandboxId: 'vm', volumeId: id, spec })],
  ['Detach', 'volume_id', (c, id) => c.detach({ sandboxId: 'vm', volumeId: id })],
  ['Get of a volume', 'volume_id', (c, id) => c.getVolume('vm', id)],
];

interface Row<Spec> {
  readonly what: string;
  readonly spec: Spec;
  readonly field: string;
  readonly value?: string;
}

const MOUNT_REASONS: ReadonlyMap<string, Reason> = new Map([
  ['spec.mount.mount_point', 'INVALID_MOUNT_POINT'],
  ['spec.mount.options', 'INVALID_MOUNT_OPTION'],
]);

/** Put into an otherwise good spec. */
const volumeRows: readonly Row<VolumeSpec>[] = [
  { what: 'a serial of 21 bytes', spec: { serial: 's'.repeat(21) }, field: 'spec.serial', value: 's'.repeat(21) },
  { what: 'a serial of 11 letters and 22 bytes', spec: { serial: 'ü'.repeat(11) }, field: 'spec.serial' },
  { what: 'a serial with a blank', spec: { serial: 'a b' }, field: 'spec.serial', value: 'a b' },
  { what: 'a serial with a comma', spec: { serial: 'a,b=c' }, field: 'spec.serial', value: 'a,b=c' },
  {
    what: 'aio native through the page cache',
    spec: { aio: 'AIO_MODE_NATIVE', cache: 'CACHE_MODE_WRITEBACK' },
    field: 'spec.aio',
    value: 'native',
  },
  { what: 'aio native with the default cache', spec: { aio: 'AIO_MODE_NATIVE' }, field: 'spec.aio', value: 'native' },
  {
    what: 'detect_zeroes unmap with discard ignore',
    spec: { detectZeroes: 'DETECT_ZEROES_UNMAP', discard: 'DISCARD_MODE_IGNORE' },
    field: 'spec.detect_zeroes',
    value: 'unmap',
  },
  {
    what: 'discard on a read-only volume',
    spec: { readOnly: true, discard: 'DISCARD_MODE_UNMAP' },
    field: 'spec.discard',
    value: 'unmap',
  },
  {
    what: 'formatting a read-only volume',
    spec: { readOnly: true, mount: { fsType: 'ext4', mountPoint: '/mnt', format: 'FORMAT_IF_EMPTY' } },
    field: 'spec.mount.format',
    value: 'if_empty',
  },
  { what: 'a block size of 513', spec: { logicalBlockSize: 513 }, field: 'spec.logical_block_size', value: '513' },
  { what: 'a block size of 256', spec: { logicalBlockSize: 256 }, field: 'spec.logical_block_size', value: '256' },
  {
    what: 'a block size that Linux does not take',
    spec: { logicalBlockSize: 8192 },
    field: 'spec.logical_block_size',
    value: '8192',
  },
  {
    what: 'physical blocks smaller than logical ones',
    spec: { logicalBlockSize: 4096, physicalBlockSize: 512 },
    field: 'spec.physical_block_size',
    value: '512',
  },
  {
    what: 'physical blocks of 3000 bytes',
    spec: { physicalBlockSize: 3000 },
    field: 'spec.physical_block_size',
    value: '3000',
  },
  { what: '1025 queues', spec: { queues: 1025 }, field: 'spec.queues', value: '1025' },
  { what: '4294967295 queues', spec: { queues: 4_294_967_295 }, field: 'spec.queues', value: '4294967295' },
  { what: 'an unknown file system', spec: { mount: { fsType: 'btrfs' } }, field: 'spec.mount.fs_type', value: 'btrfs' },
  {
    what: 'a mount point that climbs',
    spec: { mount: { fsType: 'ext4', mountPoint: '/mnt/../etc' } },
    field: 'spec.mount.mount_point',
    value: '/mnt/../etc',
  },
  {
    what: 'a mount point that ends with a slash',
    spec: { mount: { fsType: 'ext4', mountPoint: '/mnt/a/' } },
    field: 'spec.mount.mount_point',
    value: '/mnt/a/',
  },
  {
    what: 'the mount option ro',
    spec: { mount: { fsType: 'ext4', mountPoint: '/mnt', options: ['ro'] } },
    field: 'spec.mount.options',
    value: 'ro',
  },
  {
    what: 'the root as mount point',
    spec: { mount: { fsType: 'ext4', mountPoint: '/' } },
    field: 'spec.mount.mount_point',
    value: '/',
  },
  {
    what: 'a mount option with a command in it',
    spec: { mount: { fsType: 'ext4', mountPoint: '/mnt', options: ['ro;reboot'] } },
    field: 'spec.mount.options',
    value: 'ro;reboot',
  },
  ...(['cache', 'aio', 'discard', 'detectZeroes'] as const).map((name) => ({
    what: `an unknown number for ${name}`,
    spec: { [name]: UNKNOWN_ENUM_NUMBER },
    field: name === 'detectZeroes' ? 'spec.detect_zeroes' : `spec.${name}`,
    value: String(UNKNOWN_ENUM_NUMBER),
  })),
  {
    what: 'an unknown number for the format',
    // The generated type knows only the numbers of this version; the wire knows all.
    spec: { mount: { fsType: 'ext4', mountPoint: '/mnt', format: UNKNOWN_ENUM_NUMBER as 1 } },
    field: 'spec.mount.format',
    value: String(UNKNOWN_ENUM_NUMBER),
  },
];

const sandboxRows: readonly Row<SandboxSpec>[] = [
  { what: '256 vCPUs', spec: { vcpus: 256 }, field: 'spec.vcpus', value: '256' },
  { what: 'a capacity of 218', spec: { volumeCapacity: 218 }, field: 'spec.volume_capacity', value: '218' },
  {
    what: 'a capacity of 4294967295',
    spec: { volumeCapacity: 4_294_967_295 },
    field: 'spec.volume_capacity',
    value: '4294967295',
  },
  { what: '63 MiB of memory', spec: { memoryMib: 63 }, field: 'spec.memory_mib', value: '63' },
  { what: '2^63 MiB of memory', spec: { memoryMib: '9223372036854775808' }, field: 'spec.memory_mib' },
  { what: 'a relative kernel', spec: { kernel: 'vmlinuz' }, field: 'spec.kernel', value: 'vmlinuz' },
  {
    what: 'a kernel parameter with a line break',
    spec: { kernelParameters: 'quiet\nx' },
    field: 'spec.kernel_parameters',
  },
  {
    what: 'kernel parameters of 1025 bytes',
    spec: { kernelParameters: 'x'.repeat(1025) },
    field: 'spec.kernel_parameters',
  },
  { what: 'a label without a name', spec: { labels: { '': 'x' } }, field: 'spec.labels' },
  { what: 'a label of 257 bytes', spec: { labels: { x: 'y'.repeat(257) } }, field: 'spec.labels' },
  {
    what: '65 labels',
    spec: { labels: Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`l${index}`, ''])) },
    field: 'spec.labels',
    value: '65',
  },
  {
    what: 'an unknown accelerator number',
    spec: { accelerator: UNKNOWN_ENUM_NUMBER as 1 },
    field: 'spec.accelerator',
    value: String(UNKNOWN_ENUM_NUMBER),
  },
  {
    what: 'an unknown ready_when number',
    spec: { readyWhen: UNKNOWN_ENUM_NUMBER as 1 },
    field: 'spec.ready_when',
    value: String(UNKNOWN_ENUM_NUMBER),
  },
];

await describe('requests that are wrong in themselves', { skip }, async () => {
  let daemon: TestDaemon;
  let path: string;
  before(async () => {
    daemon = await TestDaemon.start({ config: { request_bytes_max: REQUEST_BYTES_MAX, sandboxes_max: 2 } });
    path = await daemon.rawFile('good.raw');
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
  });
  after(() => daemon[Symbol.asyncDispose]());

  for (const [what, id] of badIds) {
    await it(`refuses ${what} in every call that takes one`, async () => {
      for (const [method, field, act] of idCalls) {
        const seen = await refusedWithoutTrace(daemon, () => act(daemon.client, id));
        const value = id.length > 120 ? `${id.slice(0, 117)}...` : id;
        assertRefusal(seen, { code: 'INVALID_ARGUMENT', reason: 'INVALID_ID', field, value });
        assert.ok(seen.message.length < 400, `${method}: a long id is shortened`);
      }
    });
  }

  for (const row of volumeRows) {
    await it(`refuses a volume with ${row.what}`, async () => {
      const seen = await refusedWithoutTrace(daemon, () =>
        daemon.client.attach({ sandboxId: 'vm', volumeId: 'bad', spec: { rawFile: { path }, ...row.spec } }),
      );
      const reason = MOUNT_REASONS.get(row.field) ?? 'INVALID_FIELD';
      assertRefusal(seen, { ...row, code: 'INVALID_ARGUMENT', reason });
    });
  }

  for (const row of sandboxRows) {
    await it(`refuses a sandbox with ${row.what}`, async () => {
      const seen = await refusedWithoutTrace(daemon, () =>
        daemon.client.createSandbox({ sandboxId: 'bad', spec: row.spec }),
      );
      const reason = row.field === 'spec.kernel' ? 'INVALID_PATH' : 'INVALID_FIELD';
      assertRefusal(seen, { ...row, code: 'INVALID_ARGUMENT', reason });
    });
  }

  await it('refuses a volume without a spec, and a spec without a source', async () => {
    const none = await refusedWithoutTrace(daemon, () => daemon.client.attach({ sandboxId: 'vm', volumeId: 'bad' }));
    assertRefusal(none, { code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELD', field: 'spec' });
    const noSource = await refusedWithoutTrace(daemon, () =>
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'bad', spec: {} }),
    );
    assertRefusal(noSource, { code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELD', field: 'spec.source' });
  });

  await it('refuses kernels that are outside the roots, missing, or no kernel', async () => {
    const outside = await refusedWithoutTrace(daemon, () =>
      daemon.client.createSandbox({ sandboxId: 'bad', spec: { kernel: '/etc/passwd' } }),
    );
    assertRefusal(outside, {
      code: 'PERMISSION_DENIED',
      reason: 'OUTSIDE_BOOT_ROOTS',
      field: 'spec.kernel',
      value: '/etc/passwd',
    });
    const initrd = join(daemon.bootDir, 'no-initrd');
    const missing = await refusedWithoutTrace(daemon, () =>
      daemon.client.createSandbox({ sandboxId: 'bad', spec: { initrd } }),
    );
    assertRefusal(missing, {
      code: 'FAILED_PRECONDITION',
      reason: 'BOOT_IMAGE_NOT_FOUND',
      field: 'spec.initrd',
      value: initrd,
    });
    const directory = await refusedWithoutTrace(daemon, () =>
      daemon.client.createSandbox({ sandboxId: 'bad', spec: { kernel: daemon.bootDir } }),
    );
    assertRefusal(directory, {
      code: 'INVALID_ARGUMENT',
      reason: 'WRONG_FILE_TYPE',
      field: 'spec.kernel',
      value: daemon.bootDir,
    });
    // QEMU itself refuses this one, after it was started.
    const kernel = join(daemon.bootDir, 'no-kernel');
    await writeFile(kernel, 'this is no kernel\n'.repeat(1000));
    const noKernel = await refusedWithoutTrace(daemon, () =>
      daemon.client.createSandbox({ sandboxId: 'bad', spec: { kernel } }),
    );
    assertRefusal(noKernel, { code: 'FAILED_PRECONDITION', reason: 'QEMU_EXITED' });
  });

  await it('refuses bytes that are no message, in unary and streaming calls', async () => {
    const cut = Buffer.from([0x12, 0x7f, 0x61]); // field 2, of 127 bytes, of which one is there
    const cutInside = Buffer.from([0x1a, 0x04, 0x0a, 0x02, 0x0a, 0x7f]); // the same in spec.raw_file.path
    const wrongWire = Buffer.from([0x7f, 0x01]); // field 15 of wire type 7, which does not exist
    using client = new RawClient(daemon.socket);
    assertRefusal(await refusedWithoutTrace(daemon, () => client.unary('Volumes/Attach', cutInside)), {
      code: 'INVALID_ARGUMENT',
      reason: 'MALFORMED_REQUEST',
    });
    for (const bytes of [cut, wrongWire]) {
      for (const method of ['Volumes/Attach', 'Volumes/List', 'Sandboxes/Create', 'Sandboxes/Delete']) {
        const seen = await refusedWithoutTrace(daemon, () => client.unary(method, bytes));
        assertRefusal(seen, { code: 'INVALID_ARGUMENT', reason: 'MALFORMED_REQUEST' });
      }
      for (const method of ['Events/Watch', 'Volumes/Watch', 'Sandboxes/Console']) {
        const seen = await refusedWithoutTrace(daemon, () => client.stream(method, bytes));
        assertRefusal(seen, { code: 'INVALID_ARGUMENT', reason: 'MALFORMED_REQUEST' });
      }
    }
  });

  await it('refuses a request that is longer than request_bytes_max, and answers the next', async () => {
    const before = await worldState(daemon);
    const tooLong = 'x'.repeat(REQUEST_BYTES_MAX);
    await assert.rejects(daemon.client.attach({ sandboxId: 'vm', volumeId: tooLong, spec }), (error) => {
      assert.ok(isServiceError(error));
      // grpc-js answers before any of our code has a say, hence no ErrorInfo.
      assert.equal(error.code, status.RESOURCE_EXHAUSTED);
      assert.match(error.details, new RegExp(`${REQUEST_BYTES_MAX}`));
      return true;
    });
    assert.deepEqual(await worldState(daemon), before);
  });

  await it('refuses an unknown method, and a sandbox more than sandboxes_max', async () => {
    using client = new RawClient(daemon.socket);
    await assert.rejects(client.unary('Volumes/Explode', Buffer.alloc(0)), { code: status.UNIMPLEMENTED });
    await daemon.client.createSandbox({ sandboxId: 'two', spec: { readyWhen: 'READY_WHEN_STARTED' } });
    const seen = await refusedWithoutTrace(daemon, () => daemon.client.createSandbox({ sandboxId: 'three' }));
    assertRefusal(seen, { code: 'RESOURCE_EXHAUSTED', reason: 'TOO_MANY_SANDBOXES' });
    await daemon.client.deleteSandbox('two');
  });

  await it('names what is unknown: sandbox, volume, watched sandbox, past events, guest programs', async () => {
    const { client } = daemon;
    const unknownSandbox: readonly (() => Promise<unknown>)[] = [
      () => client.getSandbox('nobody'),
      () => client.stopSandbox({ sandboxId: 'nobody' }),
      () => client.exec('nobody', 'true'),
      () => client.attach({ sandboxId: 'nobody', volumeId: 'v', spec: { rawFile: { path } } }),
      () => client.detach({ sandboxId: 'nobody', volumeId: 'v' }),
      () => client.getVolume('nobody', 'v'),
      () => client.listVolumes('nobody'),
      () => firstOf(client.volumes.watch({ sandboxId: 'nobody' })),
      () => firstOf(client.sandboxes.watch({ sandboxId: 'nobody' })),
      () => firstOf(client.sandboxes.console({ sandboxId: 'nobody' })),
    ];
    for (const act of unknownSandbox) {
      const seen = await refusedWithoutTrace(daemon, act);
      assertRefusal(seen, { code: 'NOT_FOUND', reason: 'SANDBOX_NOT_FOUND' });
      assert.equal(seen.metadata['sandboxId'], 'nobody');
      assert.match(seen.message, /nobody/);
    }
    for (const act of [() => client.detach({ sandboxId: 'vm', volumeId: 'v' }), () => client.getVolume('vm', 'v')]) {
      const seen = await refusedWithoutTrace(daemon, act);
      assertRefusal(seen, { code: 'NOT_FOUND', reason: 'VOLUME_NOT_FOUND' });
      assert.deepEqual({ ...seen.metadata }, { sandboxId: 'vm', volumeId: 'v' });
    }
    const future = await refusedWithoutTrace(daemon, () => firstOf(client.events.watch({ afterSequence: 1_000_000 })));
    assertRefusal(future, { code: 'OUT_OF_RANGE', reason: 'EVENTS_LOST' });
    const relative = await refusedWithoutTrace(daemon, () =>
      call((done) => client.sandboxes.exec({ sandboxId: 'vm', path: 'bin/sh' }, done)),
    );
    assertRefusal(relative, { code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELD', field: 'path', value: 'bin/sh' });
    const noProgram = await refusedWithoutTrace(daemon, () =>
      call((done) => client.sandboxes.exec({ sandboxId: 'vm', path: '/no/such/program' }, done)),
    );
    assertRefusal(noProgram, { code: 'FAILED_PRECONDITION', reason: 'GUEST_EXEC_REFUSED' });
    assert.match(noProgram.message, /\/no\/such\/program/);
  });

  await it('takes standard input byte by byte', async () => {
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    const result = await daemon.client.exec('vm', 'cat', bytes);
    assert.deepEqual(result.standardOutput, bytes);
  });

  await it('takes the bounds themselves', async () => {
    const volume = await daemon.client.attach({
      sandboxId: 'vm',
      volumeId: 'v'.repeat(64),
      spec: {
        rawFile: { path },
        serial: 's'.repeat(20),
        logicalBlockSize: 4096,
        physicalBlockSize: 32768,
        queues: 1024,
      },
    });
    assert.equal(volume.state, 'VOLUME_STATE_ATTACHED');
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'v'.repeat(64) });
    const sandboxId = 'S'.repeat(64);
    const sandbox = await daemon.client.createSandbox({
      sandboxId,
      spec: { vcpus: 255, memoryMib: 64, volumeCapacity: 217, readyWhen: 'READY_WHEN_STARTED' },
    });
    assert.equal(sandbox.sandboxId, sandboxId);
    await daemon.client.deleteSandbox(sandboxId);
  });
});
