import { invalidArgument } from '../../base/errors.ts';
import { completeEncryption, type EncryptionSpec, type RequestedEncryption } from './encryption.ts';

/** What a caller may ask of a volume, and what becomes of what was left out. Pure: nothing here touches the host. */

export type SourceKind = 'raw-file' | 'qcow2-file' | 'block-device';
export type CacheMode = 'none' | 'writeback' | 'writethrough' | 'directsync' | 'unsafe';
export type AioMode = 'threads' | 'native' | 'io_uring';
export type DiscardMode = 'ignore' | 'unmap';
export type DetectZeroes = 'off' | 'on' | 'unmap';
/** QAPI BlockdevOnError; `enospc` stops the VM when there is no space and reports everything else. */
export type IoErrorPolicy = 'report' | 'ignore' | 'stop' | 'enospc';
export type FsType = 'ext4' | 'xfs';

export interface MountSpec {
  readonly fsType: FsType;
  /** Absolute path in the guest. */
  readonly mountPoint: string;
  readonly options: readonly string[];
  readonly format: 'never' | 'if_empty';
}

/** A volume as the caller asked for it, with every default filled in. Two specs are the same when they are deeply equal. */
export interface VolumeSpec {
  readonly source: { readonly kind: SourceKind; readonly path: string };
  readonly readOnly: boolean;
  readonly cache: CacheMode;
  readonly aio: AioMode | 'auto';
  readonly discard: DiscardMode;
  readonly detectZeroes: DetectZeroes;
  /** At most 20 bytes: virtio-blk cuts the rest off in silence (VIRTIO_BLK_ID_BYTES). */
  readonly serial: string;
  readonly queues: number;
  /** Bytes. */
  readonly logicalBlockSize: number;
  /** Bytes. */
  readonly physicalBlockSize: number;
  readonly mount: MountSpec | undefined;
  readonly writeErrors: IoErrorPolicy;
  readonly readErrors: IoErrorPolicy;
  readonly encryption: EncryptionSpec | undefined;
}

/** As VolumeSpec, where empty strings, zeroes and undefined ask for the default. */
export interface RequestedSpec {
  readonly source: { readonly kind: SourceKind; readonly path: string } | undefined;
  readonly readOnly: boolean;
  readonly cache: CacheMode | undefined;
  readonly aio: AioMode | 'auto';
  readonly discard: DiscardMode | undefined;
  readonly detectZeroes: DetectZeroes | undefined;
  readonly serial: string;
  readonly queues: number;
  readonly logicalBlockSize: number;
  readonly physicalBlockSize: number;
  readonly mount: MountSpec | undefined;
  readonly writeErrors?: IoErrorPolicy | undefined;
  readonly readErrors?: IoErrorPolicy | undefined;
  readonly encryption?: RequestedEncryption | undefined;
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

/**
 * Fills in the defaults and refuses what contradicts itself.
 * @param serial the serial to give when the caller names none
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function completeSpec(requested: RequestedSpec, serial: string, vcpus: number): VolumeSpec {
  const { source, readOnly } = requested;
  if (source === undefined) {
    throw invalidArgument('spec.source', '', 'one of raw_file, qcow2_file and block_device is needed');
  }
  checkHostPath('spec.source.path', source.path);
  const cache = requested.cache ?? 'writeback';
  const logicalBlockSize = requested.logicalBlockSize === 0 ? BLOCK_SIZE_MIN : requested.logicalBlockSize;
  const spec: VolumeSpec = {
    source,
    readOnly,
    cache,
    aio: requested.aio,
    // What was discarded would show which blocks of an encrypted volume are in use.
    discard: requested.discard ?? (readOnly || requested.encryption !== undefined ? 'ignore' : 'unmap'),
    detectZeroes: requested.detectZeroes ?? 'off',
    serial: checkSerial(requested.serial === '' ? serial : requested.serial),
    queues: requested.queues === 0 ? vcpus : requested.queues,
    logicalBlockSize,
    physicalBlockSize: requested.physicalBlockSize === 0 ? logicalBlockSize : requested.physicalBlockSize,
    mount: requested.mount === undefined ? undefined : checkMount(requested.mount, readOnly),
    writeErrors: requested.writeErrors ?? 'enospc',
    readErrors: requested.readErrors ?? 'report',
    encryption: requested.encryption && completeEncryption(requested.encryption, requested),
  };
  checkContradictions(spec);
  return spec;
}

function checkContradictions(spec: VolumeSpec): void {
  if (spec.aio === 'native' && !isDirect(spec.cache)) {
    throw invalidArgument('spec.aio', 'native', `needs cache mode none or directsync, not ${spec.cache}`);
  }
  if (spec.detectZeroes === 'unmap' && spec.discard !== 'unmap') {
    throw invalidArgument('spec.detect_zeroes', 'unmap', 'needs discard unmap');
  }
  if (spec.readOnly && spec.discard === 'unmap') {
    throw invalidArgument('spec.discard', 'unmap', 'a read-only volume discards nothing');
  }
  if (spec.readErrors === 'enospc') {
    throw invalidArgument('spec.read_errors', 'enospc', 'a read never runs out of space');
  }
  if (spec.queues < 1 || spec.queues > QUEUES_MAX) {
    throw invalidArgument('spec.queues', spec.queues, `must be from 1 to ${QUEUES_MAX}`);
  }
  checkBlockSize('spec.logical_block_size', spec.logicalBlockSize, BLOCK_SIZE_MIN, LOGICAL_BLOCK_SIZE_MAX);
  checkBlockSize('spec.physical_block_size', spec.physicalBlockSize, spec.logicalBlockSize, PHYSICAL_BLOCK_SIZE_MAX);
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

function checkMount(mount: MountSpec, readOnly: boolean): MountSpec {
  checkHostPath('spec.mount.mount_point', mount.mountPoint);
  if (mount.mountPoint === '/') throw invalidArgument('spec.mount.mount_point', '/', 'is the root of the guest');
  if (mount.options.length > MOUNT_OPTIONS_MAX) {
    throw invalidArgument('spec.mount.options', mount.options.length, `at most ${MOUNT_OPTIONS_MAX} are allowed`);
  }
  for (const option of mount.options) {
    if (!/^[A-Za-z0-9_=.:/+@-]{1,128}$/.test(option)) {
      throw invalidArgument('spec.mount.options', option, 'is not a mount option (letters, digits and _=.:/+@- only)');
    }
  }
  if (readOnly && mount.format === 'if_empty') {
    throw invalidArgument('spec.mount.format', 'if_empty', 'a read-only volume cannot be formatted');
  }
  return mount;
}
