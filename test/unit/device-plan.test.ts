import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { ID_LENGTH_MAX, checkId } from '../../src/base/ids.ts';
import {
  aioCandidates,
  attachPlan,
  luksRemovalSteps,
  detachPlan,
  namesFor,
  parseDeviceId,
  removalSteps,
  type AttachStep,
  type BlockNodeArguments,
  type DeviceArguments,
} from '../../src/volume/model/plan.ts';
import type { HostLuksSpec } from '../../src/volume/model/encryption.ts';
import { slotAt } from '../../src/volume/model/slots.ts';
import type { AioMode, CacheMode, VolumeSpec } from '../../src/volume/model/spec.ts';

const BASE: VolumeSpec = {
  source: { kind: 'raw-file', path: '/volumes/a.raw' },
  readOnly: false,
  cache: 'writeback',
  aio: 'auto',
  discard: 'unmap',
  detectZeroes: 'off',
  serial: 'a',
  queues: 1,
  logicalBlockSize: 512,
  physicalBlockSize: 512,
  mount: undefined,
  writeErrors: 'enospc',
  readErrors: 'report',
  encryption: undefined,
};
const NAMES = namesFor('a', 1);
const SEAT = { slot: slotAt(30), placement: { vectors: 2, iothreads: [] } };
const LUKS: HostLuksSpec = {
  kind: 'host-luks',
  key: { kind: 'file', path: '/keys/a' },
  format: 'if_empty',
  sizeBytes: 0,
  cipher: 'aes-256',
  hash: 'sha256',
  iterationMs: 100,
  uuid: '',
};

/** What a step leaves in QEMU, by name. */
function addedBy(step: Extract<AttachStep, { undo: unknown }>): string {
  switch (step.kind) {
    case 'add-device':
    case 'add-secret':
      return step.arguments.id;
    case 'create-image':
      return step.arguments['job-id'];
    default:
      return step.arguments['node-name'];
  }
}

function plan(changes: Partial<VolumeSpec>, aio: AioMode = 'threads'): readonly AttachStep[] {
  return attachPlan({ ...BASE, ...changes }, NAMES, SEAT, aio);
}

function nodeOf(changes: Partial<VolumeSpec>, aio: AioMode = 'threads'): BlockNodeArguments {
  const [step] = plan(changes, aio);
  assert.equal(step?.kind, 'add-block-node');
  return step.arguments;
}

function deviceOf(changes: Partial<VolumeSpec>): DeviceArguments {
  const [, step] = plan(changes);
  assert.equal(step?.kind, 'add-device');
  return step.arguments;
}

suite('attach plan', () => {
  test('a plain raw file, in full', () => {
    assert.deepEqual(attachPlan(BASE, NAMES, SEAT, 'io_uring'), [
      {
        kind: 'add-block-node',
        command: 'blockdev-add',
        arguments: {
          driver: 'raw',
          'node-name': 'vol-1-fmt',
          'read-only': false,
          'auto-read-only': false,
          discard: 'unmap',
          'detect-zeroes': 'off',
          cache: { direct: false, 'no-flush': false },
          file: {
            driver: 'file',
            'node-name': 'vol-1-file',
            filename: '/volumes/a.raw',
            aio: 'io_uring',
            'read-only': false,
            'auto-read-only': false,
            discard: 'unmap',
            cache: { direct: false, 'no-flush': false },
            locking: 'on',
          },
        },
        undo: { kind: 'remove-block-node', command: 'blockdev-del', arguments: { 'node-name': 'vol-1-fmt' } },
      },
      {
        kind: 'add-device',
        command: 'device_add',
        arguments: {
          driver: 'virtio-blk-pci',
          id: 'vol-1-a',
          bus: 'bridge0',
          addr: '0x1f',
          drive: 'vol-1-fmt',
          serial: 'a',
          'num-queues': 1,
          vectors: 2,
          logical_block_size: 512,
          physical_block_size: 512,
          'write-cache': 'on',
          discard: true,
          'share-rw': false,
          werror: 'enospc',
          rerror: 'report',
        },
        undo: { kind: 'remove-device', command: 'device_del', arguments: { id: 'vol-1-a' } },
      },
      { kind: 'await-driver' },
      { kind: 'find-in-guest' },
    ]);
  });

  const CACHE: readonly [CacheMode, { direct: boolean; noFlush: boolean; writeCache: 'on' | 'off' }][] = [
    ['none', { direct: true, noFlush: false, writeCache: 'on' }],
    ['writeback', { direct: false, noFlush: false, writeCache: 'on' }],
    ['writethrough', { direct: false, noFlush: false, writeCache: 'off' }],
    ['directsync', { direct: true, noFlush: false, writeCache: 'off' }],
    ['unsafe', { direct: false, noFlush: true, writeCache: 'on' }],
  ];
  for (const [cache, { direct, noFlush, writeCache }] of CACHE) {
    test(`cache mode ${cache}, on both nodes and the front end`, () => {
      const node = nodeOf({ cache });
      assert.deepEqual(node.cache, { direct, 'no-flush': noFlush });
      assert.deepEqual(node.file.cache, { direct, 'no-flush': noFlush });
      assert.equal(deviceOf({ cache })['write-cache'], writeCache);
    });
  }

  test('read-only reaches both nodes, and neither may become so by itself', () => {
    for (const readOnly of [true, false]) {
      const node = nodeOf({ readOnly });
      assert.deepEqual([node['read-only'], node.file['read-only']], [readOnly, readOnly]);
      assert.deepEqual([node['auto-read-only'], node.file['auto-read-only']], [false, false]);
    }
  });

  test('only qcow2 names its backing file, and it is none', () => {
    const node = nodeOf({ source: { kind: 'qcow2-file', path: '/volumes/a.qcow2' } });
    assert.deepEqual([node.driver, node.file.driver, node.backing], ['qcow2', 'file', null]);
    assert.ok(!('backing' in nodeOf({})), 'raw takes no backing option');
  });

  test('a block device is opened as one', () => {
    const node = nodeOf({ source: { kind: 'block-device', path: '/dev/loop7' } });
    assert.deepEqual([node.driver, node.file.driver, node.file.filename], ['raw', 'host_device', '/dev/loop7']);
    assert.ok(!('backing' in node));
  });

  test('discard, detect-zeroes, sizes, queues, serial and slot reach their places', () => {
    const node = nodeOf({ discard: 'ignore', detectZeroes: 'on' });
    assert.deepEqual([node.discard, node.file.discard, node['detect-zeroes']], ['ignore', 'ignore', 'on']);
    const device = deviceOf({ discard: 'ignore', queues: 4, serial: 'S-1', logicalBlockSize: 4096 });
    assert.deepEqual(
      [device.discard, device['num-queues'], device.serial, device.logical_block_size],
      [false, 4, 'S-1', 4096],
    );
    assert.equal(deviceOf({ physicalBlockSize: 8192 }).physical_block_size, 8192);
    assert.deepEqual([device.bus, device.addr, device.drive], ['bridge0', '0x1f', NAMES.formatNode]);
  });

  test('a mount comes last', () => {
    const mount = { fsType: 'ext4', mountPoint: '/mnt', options: [], format: 'never' } as const;
    const kinds = plan({ mount }).map((step) => step.kind);
    assert.deepEqual(kinds, ['add-block-node', 'add-device', 'await-driver', 'find-in-guest', 'mount']);
  });

  test('every step that adds something names what removes it, and nothing else does', () => {
    const mount = { fsType: 'ext4', mountPoint: '/mnt', options: [], format: 'never' } as const;
    for (const step of [...plan({ mount }), ...plan({ encryption: LUKS })]) {
      assert.equal('undo' in step, 'command' in step, step.kind);
      if (!('undo' in step)) continue;
      const added = addedBy(step);
      assert.deepEqual(Object.values(step.undo.arguments), [added]);
    }
  });

  test('an encrypted disk: protocol node, secrets, image, luks node; then nothing needs the secrets', () => {
    const steps = plan({ encryption: LUKS });
    assert.deepEqual(
      steps.map(({ kind }) => kind),
      [
        'fetch-key',
        'add-file-node',
        'add-secret',
        'add-secret',
        'create-image',
        'add-luks-node',
        'remove-secrets',
        'add-device',
        'await-driver',
        'find-in-guest',
      ],
    );
    assert.doesNotMatch(JSON.stringify(steps), /"data"|"iv"/);
    const never = plan({ encryption: { ...LUKS, format: 'never' } }).map(({ kind }) => kind);
    assert.equal(never.includes('create-image'), false);
    const added = steps.flatMap((step) => ('undo' in step ? [addedBy(step)] : []));
    const removed = [...removalSteps(NAMES), ...luksRemovalSteps(NAMES)].flatMap((step) =>
      Object.values(step.arguments),
    );
    assert.deepEqual(added.sort(), removed.sort());
  });

  test('encryption in the guest comes before the mount, and asks for a key only when it is given one', () => {
    const encryption = {
      kind: 'guest-luks2',
      key: { kind: 'ephemeral' },
      mode: 'create',
      integrity: false,
      sectorSize: 4096,
      uuid: '',
    } as const;
    const kinds = (spec: Partial<VolumeSpec>): readonly string[] => plan(spec).map(({ kind }) => kind);
    const rest = ['add-block-node', 'add-device', 'await-driver', 'find-in-guest', 'open-in-guest'];
    assert.deepEqual(kinds({ encryption }), rest);
    const key = { kind: 'provided', reference: { kind: 'command', name: 'vault' } } as const;
    assert.deepEqual(kinds({ encryption: { ...encryption, key } }), ['fetch-key', ...rest]);
    assert.deepEqual(plan({ encryption }).at(-1), { kind: 'open-in-guest', name: 'a-crypt' });
  });

  test('the detach plan takes out what the attach plan put in, in the opposite order', () => {
    const undo = plan({}).flatMap((step) => ('undo' in step ? [step.undo] : []));
    assert.deepEqual(removalSteps(NAMES), undo.toReversed());
    assert.deepEqual(detachPlan(NAMES), [{ kind: 'ask-guest' }, ...undo.toReversed(), { kind: 'prove-gone' }]);
  });
});

suite('aio candidates', () => {
  test('auto falls back to what every host can do; native only without the page cache', () => {
    for (const cache of ['none', 'directsync'] as const) {
      assert.deepEqual(aioCandidates({ ...BASE, cache }), ['io_uring', 'native', 'threads']);
    }
    for (const cache of ['writeback', 'writethrough', 'unsafe'] as const) {
      assert.deepEqual(aioCandidates({ ...BASE, cache }), ['io_uring', 'threads']);
    }
  });

  test('a mode that the caller chose stands alone', () => {
    for (const aio of ['io_uring', 'native', 'threads'] as const) {
      assert.deepEqual(aioCandidates({ ...BASE, cache: 'none', aio }), [aio]);
    }
  });
});

const alphabet = Array.from('abzABZ0159._-');
const anyId = fc
  .tuple(
    fc.constantFrom('a', 'Z', '0', '9'),
    fc.array(fc.constantFrom(...alphabet, '-1-', '-fmt', 'vol-1-'), { maxLength: 20 }),
  )
  .map(([first, rest]) => (first + rest.join('')).slice(0, ID_LENGTH_MAX));

suite('names in QEMU', () => {
  test('parseDeviceId is the inverse of namesFor for any legal id', () => {
    fc.assert(
      fc.property(anyId, fc.integer({ min: 1, max: 10 ** 9 }), (volumeId, generation) => {
        checkId('volume_id', volumeId);
        assert.deepEqual(parseDeviceId(namesFor(volumeId, generation).device), { volumeId, generation });
      }),
    );
  });

  test('two generations share no name, whatever the ids are', () => {
    fc.assert(
      fc.property(anyId, anyId, fc.nat(1000), fc.nat(1000), (one, two, first, second) => {
        fc.pre(first !== second);
        const names = [namesFor(one, first), namesFor(two, second)].flatMap((each) => [
          each.device,
          each.formatNode,
          each.fileNode,
        ]);
        assert.equal(new Set(names).size, 6);
      }),
    );
  });

  test('node names keep to 31 characters for a thousand million generations', () => {
    const { formatNode, fileNode } = namesFor('x'.repeat(ID_LENGTH_MAX), 10 ** 9);
    assert.ok(formatNode.length <= 31 && fileNode.length <= 31);
  });

  test('devices that are not volumes are not taken for some', () => {
    for (const id of ['serial0', 'bridge0', 'vol-', 'vol-1', 'vol-1-', 'vol-x-a', 'xvol-1-a', '']) {
      assert.equal(parseDeviceId(id), undefined, id);
    }
  });
});
