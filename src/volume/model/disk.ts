import { z } from 'zod';
import { invalidArgument } from '../../base/errors.ts';
import { checkMountOption, checkMountPoint } from '../../base/mount-rules.ts';

/**
 * What a caller may ask of a volume's disk, whatever its source, and what becomes of what was left out. Pure: nothing
 * here touches the host. Types come from the schemas, which are what the journal keeps.
 */

export const aioModeSchema = z.enum(['threads', 'native', 'io_uring']);
/** QAPI BlockdevOnError; `enospc` stops the VM when there is no space and reports everything else. */
const errorPolicySchema = z.enum(['report', 'ignore', 'stop', 'enospc']);

export const mountSchema = z
  .object({
    fsType: z.enum(['ext4', 'xfs']),
    /** Absolute path in the guest. */
    mountPoint: z.string(),
    options: z.array(z.string()).readonly(),
    format: z.enum(['never', 'if_empty']),
    // What is not asked for is left out, so that the version before can read the record.
    /** By number; left out: the whole disk. */
    partition: z.int().optional(),
    /** Left out: never. */
    fsck: z.enum(['repair', 'full']).optional(),
  })
  .readonly();

/** Everything of a volume's spec but its source, its mount and its encryption. */
export const diskSchema = z.object({
  readOnly: z.boolean(),
  cache: z.enum(['none', 'writeback', 'writethrough', 'directsync', 'unsafe']),
  aio: z.enum(['auto', ...aioModeSchema.options]),
  discard: z.enum(['ignore', 'unmap']),
  detectZeroes: z.enum(['off', 'on', 'unmap']),
  /** At most 20 bytes: virtio-blk cuts the rest off in silence (VIRTIO_BLK_ID_BYTES). */
  serial: z.string(),
  queues: z.int(),
  /** Bytes. */
  logicalBlockSize: z.int(),
  /** Bytes. */
  physicalBlockSize: z.int(),
  writeErrors: errorPolicySchema,
  readErrors: errorPolicySchema,
});

export type AioMode = z.infer<typeof aioModeSchema>;
export type IoErrorPolicy = z.infer<typeof errorPolicySchema>;
export type MountSpec = z.infer<typeof mountSchema>;
export type FsType = MountSpec['fsType'];
export type DiskSpec = Readonly<z.infer<typeof diskSchema>>;
export type CacheMode = DiskSpec['cache'];
export type DiscardMode = DiskSpec['discard'];
export type DetectZeroes = DiskSpec['detectZeroes'];

/** As DiskSpec, where empty strings, zeroes and undefined ask for the default. */
export interface RequestedDisk {
  readonly readOnly: boolean;
  readonly cache: CacheMode | undefined;
  readonly aio: AioMode | 'auto';
  readonly discard: DiscardMode | undefined;
  readonly detectZeroes: DetectZeroes | undefined;
  readonly serial: string;
  readonly queues: number;
  readonly logicalBlockSize: number;
  readonly physicalBlockSize: number;
  readonly writeErrors?: IoErrorPolicy | undefined;
  readonly readErrors?: IoErrorPolicy | undefined;
}

export const SERIAL_BYTES_MAX = 20;
/** QEMU's VIRTIO_QUEUE_MAX. */
export const QUEUES_MAX = 1024;
const BLOCK_SIZE_MIN = 512;
/** QEMU's MAX_BLOCK_SIZE for guest block devices is 2 MiB; Linux takes logical blocks up to the page size only. */
const LOGICAL_BLOCK_SIZE_MAX = 4096;
const PHYSICAL_BLOCK_SIZE_MAX = 32768;
const PATH_BYTES_MAX = 4095;
const MOUNT_OPTIONS_MAX = 32;
/** Of a GPT as it is usually made. */
const PARTITION_MAX = 128;

/**
 * Fills in the defaults.
 * @param defaults the serial and the number of queues for a caller who names none; whether the disk is encrypted
 * @throws ShimError INVALID_ARGUMENT for a serial that cannot be one
 */
export function completeDisk(
  requested: RequestedDisk,
  defaults: { readonly serial: string; readonly vcpus: number; readonly encrypted: boolean },
): DiskSpec {
  const { readOnly } = requested;
  const logicalBlockSize = requested.logicalBlockSize === 0 ? BLOCK_SIZE_MIN : requested.logicalBlockSize;
  return {
    readOnly,
    cache: requested.cache ?? 'writeback',
    aio: requested.aio,
    // What was discarded would show which blocks of an encrypted volume are in use.
    discard: requested.discard ?? (readOnly || defaults.encrypted ? 'ignore' : 'unmap'),
    detectZeroes: requested.detectZeroes ?? 'off',
    serial: checkSerial(requested.serial === '' ? defaults.serial : requested.serial),
    queues: requested.queues === 0 ? defaults.vcpus : requested.queues,
    logicalBlockSize,
    physicalBlockSize: requested.physicalBlockSize === 0 ? logicalBlockSize : requested.physicalBlockSize,
    writeErrors: requested.writeErrors ?? 'enospc',
    readErrors: requested.readErrors ?? 'report',
  };
}

/** @throws ShimError INVALID_ARGUMENT that names the field */
export function checkContradictions(disk: DiskSpec): void {
  if (disk.aio === 'native' && !isDirect(disk.cache)) {
    throw invalidArgument('spec.aio', 'native', `needs cache mode none or directsync, not ${disk.cache}`);
  }
  if (disk.detectZeroes === 'unmap' && disk.discard !== 'unmap') {
    throw invalidArgument('spec.detect_zeroes', 'unmap', 'needs discard unmap');
  }
  if (disk.readOnly && disk.discard === 'unmap') {
    throw invalidArgument('spec.discard', 'unmap', 'a read-only volume discards nothing');
  }
  if (disk.readErrors === 'enospc') {
    throw invalidArgument('spec.read_errors', 'enospc', 'a read never runs out of space');
  }
  if (disk.queues < 1 || disk.queues > QUEUES_MAX) {
    throw invalidArgument('spec.queues', disk.queues, `must be from 1 to ${QUEUES_MAX}`);
  }
  checkBlockSize('spec.logical_block_size', disk.logicalBlockSize, BLOCK_SIZE_MIN, LOGICAL_BLOCK_SIZE_MAX);
  checkBlockSize('spec.physical_block_size', disk.physicalBlockSize, disk.logicalBlockSize, PHYSICAL_BLOCK_SIZE_MAX);
}

/** True for the cache modes that bypass the host's page cache (O_DIRECT). */
export function isDirect(cache: CacheMode): boolean {
  return cache === 'none' || cache === 'directsync';
}

/**
 * Checks a path that the caller named: absolute, no `.` or `..` elements, no NUL, at most 4095 bytes.
 * @throws ShimError INVALID_ARGUMENT / INVALID_PATH
 */
export function checkHostPath(field: string, path: string): void {
  if (path === '') throw invalidArgument(field, path, 'must not be empty', 'INVALID_PATH');
  if (!path.startsWith('/')) throw invalidArgument(field, path, 'must be an absolute path', 'INVALID_PATH');
  if (path.includes('\0')) throw invalidArgument(field, path, 'must not contain NUL', 'INVALID_PATH');
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw invalidArgument(field, path, `is longer than ${PATH_BYTES_MAX} bytes`, 'INVALID_PATH');
  }
  if (path.split('/').some((part) => part === '..' || part === '.')) {
    throw invalidArgument(field, path, 'must not contain "." or ".." elements', 'INVALID_PATH');
  }
}

function checkPartitionAndFsck({ fsType, format, partition, fsck }: MountSpec, readOnly: boolean): void {
  if (partition !== undefined && partition > PARTITION_MAX) {
    throw invalidArgument('spec.mount.partition', partition, `must be from 1 to ${PARTITION_MAX}, or 0 for the disk`);
  }
  if (partition !== undefined && format === 'if_empty') {
    throw invalidArgument('spec.mount.partition', partition, 'only a whole disk is ever formatted');
  }
  if (fsck === undefined) return;
  if (fsType !== 'ext4') throw invalidArgument('spec.mount.fsck', fsck, `is for ext4, not for ${fsType}`);
  if (readOnly) throw invalidArgument('spec.mount.fsck', fsck, 'nothing is mended on a read-only volume');
}

function checkSerial(serial: string): string {
  const bytes = Buffer.byteLength(serial);
  if (bytes > SERIAL_BYTES_MAX) {
    throw invalidArgument('spec.serial', serial, `is ${bytes} bytes long, at most ${SERIAL_BYTES_MAX} reach the guest`);
  }
  if (!/^[A-Za-z0-9._-]+$/.test(serial)) {
    throw invalidArgument('spec.serial', serial, 'may hold only letters, digits, ".", "_" and "-"');
  }
  return serial;
}

function checkBlockSize(field: string, bytes: number, min: number, max: number): void {
  if (bytes < min || bytes > max || (bytes & (bytes - 1)) !== 0) {
    throw invalidArgument(field, bytes, `must be a power of two from ${min} to ${max} bytes`);
  }
}

/** @throws ShimError INVALID_ARGUMENT that names the field */
export function checkMount(mount: MountSpec, readOnly: boolean): MountSpec {
  checkPartitionAndFsck(mount, readOnly);
  checkMountPoint('spec.mount.mount_point', mount.mountPoint);
  if (mount.options.length > MOUNT_OPTIONS_MAX) {
    throw invalidArgument('spec.mount.options', mount.options.length, `at most ${MOUNT_OPTIONS_MAX} are allowed`);
  }
  for (const option of mount.options) checkMountOption('spec.mount.options', option);
  if (readOnly && mount.format === 'if_empty') {
    throw invalidArgument('spec.mount.format', 'if_empty', 'a read-only volume cannot be formatted');
  }
  return mount;
}
