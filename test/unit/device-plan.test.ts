import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ID_LENGTH_MAX, checkId } from '../../src/base/ids.ts';
import type { BlockdevProtocol } from '../../src/qmp/block-options.ts';
import type { ArgumentsOf } from '../../src/qmp/protocol.ts';
import type { AioMode, CacheMode } from '../../src/volume/model/disk.ts';
import type { HostLuksSpec } from '../../src/volume/model/encryption.ts';
import { generationOf, namesFor, parseDeviceId } from '../../src/volume/model/names.ts';
import { deviceOf as frontEndOf, type QemuObject } from '../../src/volume/model/objects.ts';
import { slotAt } from '../../src/volume/model/slots.ts';
import { aioModes, attachSteps, spelledOut, type PlanStep } from '../../src/volume/plan.ts';
import type { VolumeSpec } from '../../src/volume/spec.ts';
import { BASE_SPEC as BASE } from '../support/base-spec.ts';

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

function objects(changes: Partial<VolumeSpec>, aio: AioMode = 'threads'): readonly QemuObject[] {
  const spec = { ...BASE, ...changes };
  const creates = spec.encryption?.kind === 'host-luks' && spec.encryption.format === 'if_empty';
  return spelledOut({ spec, resolved: spec.source, names: NAMES, seat: SEAT }, aio, creates);
}

function plan(changes: Partial<VolumeSpec>): readonly PlanStep[] {
  return attachSteps({ ...BASE, ...changes }, 'a', objects(changes));
}

/** The steps by the names that the API gives them. */
function kinds(changes: Partial<VolumeSpec>): readonly string[] {
  return plan(changes).map((step) => (step.kind === 'add' ? step.object.step : step.kind));
}

type Node = Extract<ArgumentsOf<'blockdev-add'>, { driver: 'raw' | 'qcow2' }> & { readonly file: BlockdevProtocol };

function nodeOf(changes: Partial<VolumeSpec>, aio: AioMode = 'threads'): Node {
  const node = objects(changes, aio).find(({ type }) => type === 'node');
  assert.ok(node?.type === 'node');
  const { arguments: args } = node.add;
  assert.ok(args.driver === 'raw' || args.driver === 'qcow2');
  assert.ok(typeof args.file === 'object');
  return { ...args, file: args.file };
}

function deviceOf(changes: Partial<VolumeSpec>): Extract<ArgumentsOf<'device_add'>, { driver: 'virtio-blk-pci' }> {
  const { arguments: args } = frontEndOf(objects(changes)).add;
  assert.ok(args.driver === 'virtio-blk-pci');
  return args;
}

describe('attach plan', () => {
  it('a plain raw file, in full', () => {
    assert.deepEqual(objects({}, 'io_uring'), [
      {
        type: 'fdset',
        id: 'vol-1-fdset',
        step: 'add-descriptor',
        add: {
          command: 'add-fd',
          arguments: { 'fdset-id': 1001, opaque: 'vol-1-fdset /volumes/a.raw' },
        },
        remove: { command: 'remove-fd', arguments: { 'fdset-id': 1001 } },
        gone: ['vol-1-fdset'],
      },
      {
        type: 'node',
        id: 'vol-1-fmt',
        step: 'add-block-node',
        phase: 'block-node',
        add: {
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
              filename: '/dev/fdset/1001',
              aio: 'io_uring',
              'read-only': false,
              'auto-read-only': false,
              discard: 'unmap',
              cache: { direct: false, 'no-flush': false },
              locking: 'on',
            },
          },
        },
        remove: { command: 'blockdev-del', arguments: { 'node-name': 'vol-1-fmt' } },
        gone: ['vol-1-fmt', 'vol-1-file'],
      },
      {
        type: 'device',
        id: 'vol-1-a',
        step: 'add-device',
        phase: 'device',
        add: {
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
        },
        remove: { command: 'device_del', arguments: { id: 'vol-1-a' } },
        gone: ['vol-1-a'],
      },
    ]);
    assert.deepEqual(plan({}).slice(3), [{ kind: 'await-driver' }, { kind: 'find-in-guest' }]);
  });

  const CACHE: readonly [CacheMode, { direct: boolean; noFlush: boolean; writeCache: 'on' | 'off' }][] = [
    ['none', { direct: true, noFlush: false, writeCache: 'on' }],
    ['writeback', { direct: false, noFlush: false, writeCache: 'on' }],
    ['writethrough', { direct: false, noFlush: false, writeCache: 'off' }],
    ['directsync', { direct: true, noFlush: false, writeCache: 'off' }],
    ['unsafe', { direct: false, noFlush: true, writeCache: 'on' }],
  ];
  for (const [cache, { direct, noFlush, writeCache }] of CACHE) {
    it(`cache mode ${cache}, on both nodes and the front end`, () => {
      const node = nodeOf({ cache });
      assert.deepEqual(node.cache, { direct, 'no-flush': noFlush });
      assert.deepEqual(node.file.cache, { direct, 'no-flush': noFlush });
      assert.equal(deviceOf({ cache })['write-cache'], writeCache);
    });
  }

  it('read-only reaches both nodes, and neither may become so by itself', () => {
    for (const readOnly of [true, false]) {
      const node = nodeOf({ readOnly });
      assert.deepEqual([node['read-only'], node.file['read-only']], [readOnly, readOnly]);
      assert.deepEqual([node['auto-read-only'], node.file['auto-read-only']], [false, false]);
    }
  });

  it('only qcow2 names its backing file, and it is none', () => {
    const node = nodeOf({ source: { kind: 'qcow2-file', path: '/volumes/a.qcow2' } });
    assert.ok(node.driver === 'qcow2');
    assert.deepEqual([node.file.driver, node.backing], ['file', null]);
    assert.ok(!('backing' in nodeOf({})), 'raw takes no backing option');
  });

  it('a block device is opened as one', () => {
    const node = nodeOf({ source: { kind: 'block-device', path: '/dev/loop7' } });
    assert.ok(node.file.driver === 'host_device');
    assert.deepEqual([node.driver, node.file.filename], ['raw', '/dev/fdset/1001']);
    assert.ok(!('backing' in node));
  });

  it('discard, detect-zeroes, sizes, queues, serial and slot reach their places', () => {
    const node = nodeOf({ discard: 'ignore', detectZeroes: 'on' });
    assert.deepEqual([node.discard, node.file.discard, node['detect-zeroes']], ['ignore', 'ignore', 'on']);
    const device = deviceOf({ discard: 'ignore', queues: 4, serial: 'S-1', logicalBlockSize: 4096 });
    assert.deepEqual(
      [device.discard, device['num-queues'], device.serial, device.logical_block_size],
      [false, 4, 'S-1', 4096],
    );
    assert.equal(deviceOf({ physicalBlockSize: 8192 }).physical_block_size, 8192);
    assert.deepEqual([device.bus, device.addr, device.drive], ['bridge0', '0x1f', NAMES.root]);
  });

  it('a mount comes last', () => {
    const mount = { fsType: 'ext4', mountPoint: '/mnt', options: [], format: 'never' } as const;
    assert.deepEqual(kinds({ mount }), [
      'add-descriptor',
      'add-block-node',
      'add-device',
      'await-driver',
      'find-in-guest',
      'mount',
    ]);
  });

  it('every object names what adds and what removes it, and what must be gone', () => {
    for (const { id, add, remove, gone } of [...objects({}), ...objects({ encryption: LUKS })]) {
      const added: Readonly<Record<string, unknown>> = { ...add.arguments };
      // A set of descriptors goes by its number.
      const called = add.command === 'add-fd' ? added['fdset-id'] : id;
      assert.ok(
        ['id', 'node-name', 'job-id', 'fdset-id'].some((member) => added[member] === called),
        id,
      );
      assert.deepEqual(Object.values(remove.arguments), [called]);
      assert.ok(gone.includes(id));
      assert.ok(gone.every((name) => generationOf(name) === 1));
    }
  });

  it('an encrypted disk: protocol node, secrets, image, luks node; then nothing needs the secrets', () => {
    assert.deepEqual(kinds({ encryption: LUKS }), [
      'fetch-key',
      'add-descriptor',
      'add-file-node',
      'add-secret',
      'add-secret',
      'create-image',
      'add-luks-node',
      'release',
      'add-device',
      'await-driver',
      'find-in-guest',
    ]);
    const steps = plan({ encryption: LUKS });
    const released = steps.flatMap((step) => (step.kind === 'release' ? step.objects.map(({ id }) => id) : []));
    assert.deepEqual(released, ['vol-1-master', 'vol-1-key']);
    assert.doesNotMatch(JSON.stringify(steps), /"data"|"iv"/);
    assert.equal(kinds({ encryption: { ...LUKS, format: 'never' } }).includes('create-image'), false);
  });

  it('encryption in the guest comes before the mount, and asks for a key only when it is given one', () => {
    const encryption = {
      kind: 'guest-luks2',
      key: { kind: 'ephemeral' },
      mode: 'create',
      integrity: false,
      sectorSize: 4096,
      uuid: '',
    } as const;
    const rest = ['add-descriptor', 'add-block-node', 'add-device', 'await-driver', 'find-in-guest', 'open-in-guest'];
    assert.deepEqual(kinds({ encryption }), rest);
    const key = { kind: 'provided', reference: { kind: 'command', name: 'vault' } } as const;
    assert.deepEqual(kinds({ encryption: { ...encryption, key } }), ['fetch-key', ...rest]);
    assert.deepEqual(plan({ encryption }).at(-1), { kind: 'open-in-guest', name: 'a-crypt', mount: undefined });
  });
});

describe('aio candidates', () => {
  it('auto falls back to what every host can do; native only without the page cache', () => {
    for (const cache of ['none', 'directsync'] as const) {
      assert.deepEqual(aioModes({ ...BASE, cache }, true), ['io_uring', 'native', 'threads']);
    }
    for (const cache of ['writeback', 'writethrough', 'unsafe'] as const) {
      assert.deepEqual(aioModes({ ...BASE, cache }, true), ['io_uring', 'threads']);
    }
  });

  it('a source that does not end with a whole sector is never opened with io_uring', () => {
    assert.deepEqual(aioModes({ ...BASE, cache: 'none' }, false), ['native', 'threads']);
    assert.deepEqual(aioModes({ ...BASE, cache: 'writeback' }, false), ['threads']);
    assert.deepEqual(aioModes({ ...BASE, aio: 'io_uring' }, false), []);
    assert.deepEqual(aioModes({ ...BASE, aio: 'threads' }, false), ['threads']);
  });

  it('a mode that the caller chose stands alone', () => {
    for (const aio of ['io_uring', 'native', 'threads'] as const) {
      assert.deepEqual(aioModes({ ...BASE, cache: 'none', aio }, true), [aio]);
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

describe('names in QEMU', () => {
  it('parseDeviceId is the inverse of namesFor for any legal id', () => {
    fc.assert(
      fc.property(anyId, fc.integer({ min: 1, max: 10 ** 9 }), (volumeId, generation) => {
        checkId('volume_id', volumeId);
        assert.deepEqual(parseDeviceId(namesFor(volumeId, generation).device), { volumeId, generation });
      }),
    );
  });

  it('two generations share no name, whatever the ids are', () => {
    fc.assert(
      fc.property(anyId, anyId, fc.nat(1000), fc.nat(1000), (one, two, first, second) => {
        fc.pre(first !== second);
        const names = [namesFor(one, first), namesFor(two, second)].flatMap((each) => [
          each.device,
          each.root,
          each.protocol,
        ]);
        assert.equal(new Set(names).size, 6);
      }),
    );
  });

  it('node names keep to 31 characters for a thousand million generations', () => {
    const { root, protocol } = namesFor('x'.repeat(ID_LENGTH_MAX), 10 ** 9);
    assert.ok(root.length <= 31 && protocol.length <= 31);
  });

  it('devices that are not volumes are not taken for some', () => {
    for (const id of ['serial0', 'bridge0', 'vol-', 'vol-1', 'vol-1-', 'vol-x-a', 'xvol-1-a', '']) {
      assert.equal(parseDeviceId(id), undefined, id);
    }
  });
});
