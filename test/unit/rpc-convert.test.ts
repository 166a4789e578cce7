import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ShimError } from '../../src/base/errors.ts';
import { reasonRead } from '../../src/base/reasons.ts';
import { VOLUME_CAPACITY_MAX, pciPath, slotAt } from '../../src/volume/model/slots.ts';
import { isDirect } from '../../src/volume/model/disk.ts';
import { UNLIMITED } from '../../src/volume/model/limits.ts';
import { completeSpec, type VolumeSpec } from '../../src/volume/spec.ts';
import type { GuestView, VolumeState } from '../../src/volume/model/state.ts';
import { eventMessage, sandboxMessage, sandboxSpecFrom, volumeMessage, volumeSpecFrom } from '../../src/api/convert.ts';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { SandboxSpec__Output } from '../../src/grpc/generated/qshim/v1/SandboxSpec.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec__Output } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { loadApi } from '../../src/grpc/schema.ts';
import type { SandboxSnapshot } from '../../src/sandbox/sandbox.ts';
import type { SandboxSpec } from '../../src/sandbox/spec.ts';
import { causeOf, type VolumeSnapshot } from '../../src/volume/volume.ts';
import { encryptionSpec } from '../support/arbitrary-encryption.ts';

const { Volumes, Sandboxes, Events } = loadApi().qshim.v1;

/** What the other side of the wire reads. */
const volumeOverWire = (message: ReturnType<typeof volumeMessage>): Volume__Output =>
  Volumes.service.Attach.responseDeserialize(Volumes.service.Attach.responseSerialize(message));
const sandboxOverWire = (message: ReturnType<typeof sandboxMessage>): Sandbox__Output =>
  Sandboxes.service.Get.responseDeserialize(Sandboxes.service.Get.responseSerialize(message));
const eventOverWire = (message: ReturnType<typeof eventMessage>): Event__Output =>
  Events.service.Watch.responseDeserialize(Events.service.Watch.responseSerialize(message));

const mount = fc.record(
  {
    fsType: fc.constantFrom('ext4' as const, 'xfs' as const),
    mountPoint: fc.constantFrom('/data', '/a/b'),
    options: fc.array(fc.constantFrom('noatime', 'discard'), { maxLength: 2 }),
    format: fc.constantFrom('never' as const, 'if_empty' as const),
    partition: fc.integer({ min: 1, max: 128 }),
    fsck: fc.constantFrom('repair' as const, 'full' as const),
  },
  { noNullPrototype: true, requiredKeys: ['fsType', 'mountPoint', 'options', 'format'] },
);
const spec: fc.Arbitrary<VolumeSpec> = fc
  .record(
    {
      source: fc.record(
        {
          kind: fc.constantFrom('raw-file' as const, 'qcow2-file' as const, 'block-device' as const),
          path: fc.constantFrom('/volumes/a', '/volumes/ü b'),
        },
        { noNullPrototype: true },
      ),
      readOnly: fc.boolean(),
      cache: fc.constantFrom(...(['none', 'writeback', 'writethrough', 'directsync', 'unsafe'] as const)),
      aio: fc.constantFrom(...(['auto', 'threads', 'native', 'io_uring'] as const)),
      discard: fc.constantFrom('ignore' as const, 'unmap' as const),
      detectZeroes: fc.constantFrom('off' as const, 'on' as const, 'unmap' as const),
      serial: fc.constantFrom('a', 'serial-20-characters'),
      queues: fc.integer({ min: 1, max: 1024 }),
      logicalBlockSize: fc.constantFrom(512, 4096),
      physicalBlockSize: fc.constantFrom(4096, 32_768),
      mount: fc.option(mount, { nil: undefined }),
      writeErrors: fc.constantFrom(...(['report', 'ignore', 'stop', 'enospc'] as const)),
      readErrors: fc.constantFrom(...(['report', 'ignore', 'stop'] as const)),
      encryption: encryptionSpec,
      limits: fc.option(
        fc
          .record({ bps: fc.integer({ min: 1, max: 1000 }), iopsRead: fc.nat(1000), bpsMax: fc.constantFrom(0, 1000) })
          .map((limits) => ({ ...UNLIMITED, ...limits, bpsMaxLengthS: limits.bpsMax === 0 ? 0 : 1 })),
        { nil: undefined },
      ),
    },
    { noNullPrototype: true },
  )
  // Without limits there is no member for them: in records of the version before there is none either.
  .map(({ limits, ...rest }) => ({ ...rest, ...(limits && { limits }) }))
  .filter(
    (each) =>
      !(each.encryption?.kind === 'host-luks' && each.source.kind === 'qcow2-file') &&
      !(each.aio === 'native' && !isDirect(each.cache)) &&
      !(each.detectZeroes === 'unmap' && each.discard !== 'unmap') &&
      !(each.readOnly && (each.discard === 'unmap' || each.mount?.format === 'if_empty')) &&
      !(each.mount?.fsck !== undefined && (each.readOnly || each.mount.fsType === 'xfs')) &&
      !(each.mount?.partition !== undefined && (each.mount.format === 'if_empty' || each.encryption !== undefined)),
  );

const slot = slotAt(VOLUME_CAPACITY_MAX - 1);
const cause = { reason: reasonRead('OF_ANOTHER_VERSION'), message: 'because' };
const guest: GuestView = {
  pciAddress: '0000:01:1f.0',
  device: '/dev/vdb',
  evidence: ['virtio-status'],
  formatted: true,
};

function volumeIn(state: VolumeState, changes: Partial<VolumeSnapshot> = {}): VolumeSnapshot {
  return {
    sandboxId: 'one',
    volumeId: 'v',
    generation: 3,
    operations: [],
    lease: undefined,
    spec: {
      source: { kind: 'raw-file', path: '/volumes/a' },
      readOnly: false,
      cache: 'writeback',
      aio: 'auto',
      discard: 'unmap',
      detectZeroes: 'off',
      serial: 'v',
      queues: 1,
      logicalBlockSize: 512,
      physicalBlockSize: 512,
      mount: undefined,
      writeErrors: 'enospc',
      readErrors: 'report',
      encryption: undefined,
    },
    slot,
    placement: { vectors: 0, iothreads: ['iothread1'] },
    backingIdentity: 'file:1:2',
    resolvedPath: '/volumes/a',
    sizeBytes: 2 ** 40,
    health: { failing: false, errors: 0 },
    encryption: undefined,
    job: undefined,
    limits: undefined,
    draw: undefined,
    state,
    pciPath: pciPath(slot),
    guest: 'guest' in state ? state.guest : undefined,
    cause: causeOf(state),
    aio: undefined,
    times: { pending: 1_700_000_000_123, attached: undefined, detaching: undefined, removed: undefined },
    timings: [{ phase: 'device', milliseconds: 1.25 }],
    ...changes,
  };
}

describe('volumes to messages and back', () => {
  it('a spec comes back over the wire as it went, whatever was chosen', () => {
    fc.assert(
      fc.property(spec, (chosen) => {
        const message = volumeOverWire(volumeMessage(volumeIn({ state: 'removed', cause }, { spec: chosen })));
        assert.deepEqual(completeSpec(volumeSpecFrom(message.spec), 'unused', 1), chosen);
      }),
      { numRuns: 500 },
    );
  });

  const STATES: readonly [VolumeState, Partial<Volume__Output>][] = [
    [
      { state: 'pending', phase: 'attaching', slot },
      { state: 'VOLUME_STATE_PENDING', cause: null, guestDevice: '', guestPciAddress: '', formatted: false },
    ],
    [
      { state: 'pending', phase: 'undoing', slot, cause },
      { state: 'VOLUME_STATE_PENDING', cause },
    ],
    [
      { state: 'attached', slot, guest, refused: undefined },
      { state: 'VOLUME_STATE_ATTACHED', cause: null, guestDevice: '/dev/vdb', guestPciAddress: '0000:01:1f.0' },
    ],
    [
      { state: 'attached', slot, guest, refused: cause },
      { state: 'VOLUME_STATE_ATTACHED', cause, evidence: ['virtio-status'], formatted: true },
    ],
    [
      { state: 'detaching', slot, guest, force: true, deviceGone: true, cause },
      { state: 'VOLUME_STATE_DETACHING', cause },
    ],
    [
      { state: 'removed', cause },
      { state: 'VOLUME_STATE_REMOVED', cause },
    ],
  ];
  for (const [state, expected] of STATES) {
    it(`state ${JSON.stringify(state).slice(0, 60)}`, () => {
      const message = volumeOverWire(volumeMessage(volumeIn(state)));
      for (const [name, value] of Object.entries(expected)) {
        assert.deepEqual({ ...message }[name], value, name);
      }
      assert.deepEqual(
        [message.sandboxId, message.volumeId, message.generation, message.serial, message.pciPath, message.sizeBytes],
        ['one', 'v', 3, 'v', '16/1f', 2 ** 40],
      );
    });
  }

  it('a removed volume tells nothing of the guest: another disk may have its name by now', () => {
    const removed = { ...volumeIn({ state: 'removed', cause }), guest };
    const { guestDevice, guestPciAddress, evidence } = volumeOverWire(volumeMessage(removed));
    assert.deepEqual([guestDevice, guestPciAddress, evidence], ['', '', []]);
  });

  it('times, timings and the aio mode that QEMU took', () => {
    const times = { pending: 1_700_000_000_123, attached: 1_700_000_001_000, detaching: undefined, removed: 0 };
    const message = volumeOverWire(volumeMessage(volumeIn({ state: 'removed', cause }, { times, aio: 'io_uring' })));
    assert.deepEqual(message.pendingAt, { seconds: 1_700_000_000, nanos: 123_000_000 });
    assert.deepEqual(message.attachedAt, { seconds: 1_700_000_001, nanos: 0 });
    assert.equal(message.detachingAt, null);
    assert.deepEqual(message.removedAt, { seconds: 0, nanos: 0 });
    assert.equal(message.aio, 'AIO_MODE_IO_URING');
    assert.deepEqual(message.timings, [{ phase: 'device', milliseconds: 1.25 }]);
  });
});

const EMPTY_SPEC: VolumeSpec__Output = {
  readOnly: false,
  cache: 'CACHE_MODE_UNSPECIFIED',
  aio: 'AIO_MODE_AUTO',
  discard: 'DISCARD_MODE_UNSPECIFIED',
  detectZeroes: 'DETECT_ZEROES_UNSPECIFIED',
  serial: '',
  queues: 0,
  logicalBlockSize: 0,
  physicalBlockSize: 0,
  mount: null,
  writeErrors: 'IO_ERROR_POLICY_UNSPECIFIED',
  readErrors: 'IO_ERROR_POLICY_UNSPECIFIED',
  encryption: null,
  limits: null,
};

describe('what requests may say', () => {
  it('nothing said is nothing chosen', () => {
    assert.deepEqual(volumeSpecFrom(EMPTY_SPEC), {
      source: undefined,
      readOnly: false,
      cache: undefined,
      aio: 'auto',
      discard: undefined,
      detectZeroes: undefined,
      serial: '',
      queues: 0,
      logicalBlockSize: 0,
      physicalBlockSize: 0,
      mount: undefined,
      writeErrors: undefined,
      readErrors: undefined,
      encryption: undefined,
      limits: {},
      draw: { budget: '', share: 0 },
    });
    assert.deepEqual(sandboxSpecFrom(null), {
      vcpus: 0,
      iothreads: 0,
      memoryMib: 0,
      kernel: '',
      initrd: '',
      kernelParameters: '',
      accelerator: 'auto',
      volumeCapacity: 0,
      labels: {},
      readyWhen: 'agent',
      template: undefined,
    });
  });

  it('each source', () => {
    for (const [member, kind] of [
      ['rawFile', 'raw-file'],
      ['qcow2File', 'qcow2-file'],
      ['blockDevice', 'block-device'],
    ] as const) {
      const found = volumeSpecFrom({ ...EMPTY_SPEC, source: member, [member]: { path: '/p' } });
      assert.deepEqual(found.source, { kind, path: '/p' });
    }
  });

  it('values that this version does not know are refused by field: numbers, and names of objects', () => {
    const CASES: readonly [Record<string, unknown>, string][] = [
      [{ cache: 99 }, 'spec.cache'],
      [{ aio: 99 }, 'spec.aio'],
      [{ discard: 99 }, 'spec.discard'],
      [{ detectZeroes: 99 }, 'spec.detect_zeroes'],
      [{ cache: 'toString' }, 'spec.cache'],
      [{ mount: { fsType: 'btrfs', mountPoint: '/d', options: [], format: 'FORMAT_NEVER' } }, 'spec.mount.fs_type'],
      [{ mount: { fsType: 'ext4', mountPoint: '/d', options: [], format: 99 } }, 'spec.mount.format'],
      [
        { mount: { fsType: 'ext4', mountPoint: '/d', options: [], format: 'FORMAT_NEVER', partition: 0, fsck: 99 } },
        'spec.mount.fsck',
      ],
    ];
    for (const [change, field] of CASES) {
      assert.throws(
        () => volumeSpecFrom({ ...EMPTY_SPEC, ...change }),
        (error) => error instanceof ShimError && error.code === 'INVALID_ARGUMENT' && error.metadata['field'] === field,
        field,
      );
    }
    assert.throws(() => volumeSpecFrom(null), { code: 'INVALID_ARGUMENT' });
    for (const change of [{ accelerator: 99 }, { readyWhen: 99 }, { template: 99 }]) {
      const message = { accelerator: 'ACCELERATOR_AUTO', readyWhen: 'READY_WHEN_AGENT', ...change };
      assert.throws(() => sandboxSpecFrom(message as unknown as SandboxSpec__Output), { code: 'INVALID_ARGUMENT' });
    }
  });
});

describe('sandboxes and events to messages', () => {
  const sandboxSpec: SandboxSpec = {
    vcpus: 2,
    memoryMib: 512,
    kernel: '/k',
    initrd: '/i',
    kernelParameters: 'a=b',
    accelerator: 'tcg',
    volumeCapacity: 62,
    iothreads: 2,
    labels: { team: 'x' },
    readyWhen: 'started',
    template: 'auto',
  };
  const sandbox: SandboxSnapshot = {
    id: 'one',
    spec: sandboxSpec,
    uuid: 'u',
    createdAtMs: 1500,
    directory: '/s/one',
    state: 'stopped',
    cause,
    accelerator: 'tcg',
    acceleratorReason: 'asked for',
    qemuVersion: '7.2.22',
    qemuPid: 0,
    volumesInUse: 5,
    vectors: { all: 176, inUse: 10 },
    timings: [],
    agentReady: true,
    unresponsive: false,
    overBudget: '',
    runState: 'paused',
    start: { kind: 'clone', templateId: '0123', reason: '' },
    confinement: {
      ...{ level: 'degraded', uid: 1_900_000_007, cgroup: '/sys/fs/cgroup/qshim/one' },
      missing: [{ part: 'landlock', why: 'no kernel for it' }],
    },
    images: { kernel: '/real/k', initrd: '/real/i' },
  };

  it('a sandbox, its spec included, in every state', () => {
    for (const [state, expected] of [
      ['creating', 'SANDBOX_STATE_CREATING'],
      ['running', 'SANDBOX_STATE_RUNNING'],
      ['stopping', 'SANDBOX_STATE_STOPPING'],
      ['stopped', 'SANDBOX_STATE_STOPPED'],
    ] as const) {
      assert.equal(sandboxOverWire(sandboxMessage({ ...sandbox, state })).state, expected);
    }
    const message = sandboxOverWire(sandboxMessage(sandbox));
    assert.deepEqual(sandboxSpecFrom(message.spec), sandboxSpec);
    assert.deepEqual(
      [message.sandboxId, message.stateDir, message.volumesInUse, message.volumeCapacity, message.agentReady],
      ['one', '/s/one', 5, 62, true],
    );
    assert.deepEqual(
      [message.accelerator, message.acceleratorReason, message.qemuVersion, message.runState, message.cause],
      ['ACCELERATOR_TCG', 'asked for', '7.2.22', 'paused', cause],
    );
    assert.deepEqual(message.start, { kind: 'START_KIND_CLONE', templateId: '0123', reason: '' });
    assert.deepEqual(message.createdAt, { seconds: 1, nanos: 500_000_000 });
  });

  it('each accelerator and readiness comes back', () => {
    for (const accelerator of ['auto', 'kvm', 'tcg'] as const) {
      for (const readyWhen of ['agent', 'started'] as const) {
        const chosen = { ...sandboxSpec, accelerator, readyWhen };
        const message = sandboxOverWire(sandboxMessage({ ...sandbox, spec: chosen }));
        assert.deepEqual(sandboxSpecFrom(message.spec), chosen);
      }
    }
  });

  it('each use of templates and each kind of start comes back', () => {
    for (const template of ['auto', 'off', 'required'] as const) {
      const message = sandboxOverWire(sandboxMessage({ ...sandbox, spec: { ...sandboxSpec, template } }));
      assert.equal(sandboxSpecFrom(message.spec).template, template);
    }
    for (const [kind, expected] of [
      ['cold', 'START_KIND_COLD_BOOT'],
      ['clone', 'START_KIND_CLONE'],
      ['pool', 'START_KIND_POOL'],
    ] as const) {
      const start = { kind, templateId: '', reason: 'r' };
      assert.deepEqual(sandboxOverWire(sandboxMessage({ ...sandbox, start })).start, { ...start, kind: expected });
    }
  });

  it('an event', () => {
    const event = {
      epoch: 'e1',
      sequence: 12,
      timeMs: 2250,
      type: 'volume.attached',
      sandboxId: 'one',
      volumeId: 'v',
      generation: 3,
      cause: undefined,
      timings: [{ phase: 'driver', milliseconds: 2 }],
      subject: undefined,
    } as const;
    assert.deepEqual(eventOverWire(eventMessage(event)), {
      epoch: 'e1',
      sequence: 12,
      time: { seconds: 2, nanos: 250_000_000 },
      sandboxId: 'one',
      volumeId: 'v',
      generation: 3,
      type: 'volume.attached',
      cause: null,
      timings: [{ phase: 'driver', milliseconds: 2 }],
    });
    assert.equal(eventOverWire(eventMessage({ ...event, volumeId: undefined })).volumeId, '');
  });
});
