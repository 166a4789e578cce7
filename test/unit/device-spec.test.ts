import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { isDirect, type MountSpec } from '../../src/volume/model/disk.ts';
import { completeSpec, type RequestedSpec } from '../../src/volume/spec.ts';

const NOTHING: RequestedSpec = {
  source: { kind: 'raw-file', path: '/volumes/a.raw' },
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
};
const MOUNT: MountSpec = { fsType: 'ext4', mountPoint: '/data', options: ['noatime'], format: 'if_empty' };

function complete(changes: Partial<RequestedSpec>, vcpus = 1): ReturnType<typeof completeSpec> {
  return completeSpec({ ...NOTHING, ...changes }, 'given', vcpus);
}

/** Refused with INVALID_ARGUMENT, naming the field, as metadata and in the message. */
function refuses(changes: Partial<RequestedSpec>, field: string, reason = 'INVALID_FIELD'): void {
  assert.throws(
    () => complete(changes),
    (error) => {
      assert.ok(error instanceof ShimError);
      assert.deepEqual([error.code, error.reason, error.metadata['field']], ['INVALID_ARGUMENT', reason, field]);
      assert.ok(error.message.includes(field), error.message);
      return true;
    },
  );
}

describe('volume spec defaults', () => {
  it('everything that was left out is filled in', () => {
    assert.deepEqual(complete({}), {
      source: { kind: 'raw-file', path: '/volumes/a.raw' },
      readOnly: false,
      cache: 'writeback',
      aio: 'auto',
      discard: 'unmap',
      detectZeroes: 'off',
      serial: 'given',
      queues: 1,
      logicalBlockSize: 512,
      physicalBlockSize: 512,
      mount: undefined,
      writeErrors: 'enospc',
      readErrors: 'report',
      encryption: undefined,
    });
  });

  it('what was said stays', () => {
    const said = {
      source: { kind: 'qcow2-file', path: '/v/b' },
      readOnly: false,
      cache: 'none',
      aio: 'native',
      discard: 'ignore',
      detectZeroes: 'on',
      serial: 'mine',
      queues: 7,
      logicalBlockSize: 1024,
      physicalBlockSize: 4096,
      mount: MOUNT,
      writeErrors: 'stop' as const,
      readErrors: 'ignore' as const,
      encryption: undefined,
    } as const;
    assert.deepEqual(complete(said), said);
  });

  it('a read-only volume discards nothing by default', () => {
    assert.equal(complete({ readOnly: true }).discard, 'ignore');
  });

  it('queues follow the vCPUs', () => {
    for (const [vcpus, queues] of [
      [1, 1],
      [2, 2],
      [4, 4],
      [5, 5],
      [255, 255],
    ] as const) {
      assert.equal(complete({}, vcpus).queues, queues);
    }
  });

  it('the physical block size follows the logical one', () => {
    assert.equal(complete({ logicalBlockSize: 4096 }).physicalBlockSize, 4096);
  });

  it('direct modes', () => {
    const direct = (['none', 'writeback', 'writethrough', 'directsync', 'unsafe'] as const).filter(isDirect);
    assert.deepEqual(direct, ['none', 'directsync']);
  });
});

describe('volume spec contradictions', () => {
  it('native aio needs O_DIRECT', () => {
    for (const cache of ['writeback', 'writethrough', 'unsafe', undefined] as const) {
      refuses({ aio: 'native', cache }, 'spec.aio');
    }
    for (const cache of ['none', 'directsync'] as const) assert.equal(complete({ aio: 'native', cache }).aio, 'native');
  });

  it('detect-zeroes unmap needs discard unmap', () => {
    refuses({ detectZeroes: 'unmap', discard: 'ignore' }, 'spec.detect_zeroes');
    refuses({ detectZeroes: 'unmap', readOnly: true }, 'spec.detect_zeroes');
    assert.equal(complete({ detectZeroes: 'unmap' }).detectZeroes, 'unmap');
  });

  it('a read-only volume cannot discard', () => refuses({ readOnly: true, discard: 'unmap' }, 'spec.discard'));

  it('queues are from 1 to 1024', () => {
    refuses({ queues: 1025 }, 'spec.queues');
    refuses({ queues: -1 }, 'spec.queues');
    assert.equal(complete({ queues: 1024 }).queues, 1024);
  });

  it('block sizes are powers of two within their limits', () => {
    for (const size of [1, 256, 511, 513, 1000, 8192, -512]) {
      refuses({ logicalBlockSize: size }, 'spec.logical_block_size');
    }
    for (const size of [512, 1024, 2048, 4096])
      assert.equal(complete({ logicalBlockSize: size }).logicalBlockSize, size);
    refuses({ logicalBlockSize: 4096, physicalBlockSize: 512 }, 'spec.physical_block_size');
    refuses({ physicalBlockSize: 65_536 }, 'spec.physical_block_size');
    refuses({ physicalBlockSize: 3072 }, 'spec.physical_block_size');
    assert.equal(complete({ physicalBlockSize: 32_768 }).physicalBlockSize, 32_768);
  });

  it('a source is needed, by an absolute path without detours', () => {
    refuses({ source: undefined }, 'spec.source');
    for (const path of ['', 'a.raw', './a', '/a/../b', '/a/./b', '/..', '/a\0b', `/${'x'.repeat(4095)}`]) {
      refuses({ source: { kind: 'raw-file', path } }, 'spec.source.path', 'INVALID_PATH');
    }
    for (const path of [`/${'x'.repeat(4094)}`, '/a/..b/.c']) {
      const source = { kind: 'raw-file', path } as const;
      assert.deepEqual(complete({ source }).source, source);
    }
  });

  it('a serial that virtio would cut, or that needs quoting, is refused', () => {
    refuses({ serial: 'x'.repeat(21) }, 'spec.serial');
    refuses({ serial: 'ü'.repeat(11) }, 'spec.serial');
    for (const serial of ['a b', 'a,b', 'a/b', 'ü', 'a\n']) refuses({ serial }, 'spec.serial');
    assert.equal(complete({ serial: 'x'.repeat(20) }).serial.length, 20);
  });

  it('a serial that the caller did not choose is held to the same', () => {
    assert.throws(() => completeSpec(NOTHING, 'x'.repeat(21), 1), { code: 'INVALID_ARGUMENT' });
  });

  it('mounts', () => {
    for (const mountPoint of ['', 'data', '/', '/a/', '/a//b', '/a/../b', '/a/./b', '/a\nb', `/${'a'.repeat(4000)}`]) {
      refuses({ mount: { ...MOUNT, mountPoint } }, 'spec.mount.mount_point', 'INVALID_MOUNT_POINT');
    }
    refuses({ mount: { ...MOUNT, options: Array.from({ length: 33 }, () => 'sync') } }, 'spec.mount.options');
    for (const option of ['', 'ro', 'rw', '=x', 'a,b', 'a b', 'a;b', '$(x)', 'x'.repeat(129)]) {
      refuses({ mount: { ...MOUNT, options: ['noatime', option] } }, 'spec.mount.options', 'INVALID_MOUNT_OPTION');
    }
    const options = ['subvol=@', 'x'.repeat(128), 'a%20b', 'data=ordered'];
    assert.deepEqual(complete({ mount: { ...MOUNT, options } }).mount?.options, options);
    refuses({ readOnly: true, mount: MOUNT }, 'spec.mount.format');
    assert.deepEqual(complete({ readOnly: true, mount: { ...MOUNT, format: 'never' } }).mount?.format, 'never');
    const plain = { ...MOUNT, format: 'never' as const };
    assert.equal(complete({ mount: { ...plain, partition: 128, fsck: 'full' } }).mount?.partition, 128);
    refuses({ mount: { ...plain, partition: 129 } }, 'spec.mount.partition');
    refuses({ mount: { ...MOUNT, partition: 1 } }, 'spec.mount.partition');
    refuses({ mount: { ...plain, fsType: 'xfs', fsck: 'repair' } }, 'spec.mount.fsck');
    refuses({ readOnly: true, mount: { ...plain, fsck: 'repair' } }, 'spec.mount.fsck');
  });
});
