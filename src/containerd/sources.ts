import { readFile, readlink, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { ShimError, errnoOf, invalidArgument, messageOf } from '../base/errors.ts';
import type { FsType } from '../volume/model/disk.ts';
import { sourceOfPath } from '../volume/source/of-path.ts';
import type { RequestedSpec } from '../volume/spec.ts';
import type { OciConfig } from '../guest/containers/oci.ts';
import type { FsGroup } from '../guest/containers/types.ts';
import { base64Url } from './direct-volumes.ts';

/** From what containerd, CRI and Kata name on the host to volumes. */

const RECORD_BYTES_MAX = 64 * 1024;
/** 2^32 - 1 means "no group" to chown(2). */
const GID_MAX = 2 ** 32 - 2;

/** A file system on the host that a container shall have. */
export interface HostFileSystem {
  /** A raw image, or a block device. */
  readonly source: string;
  readonly fsType: FsType;
  readonly readOnly: boolean;
  readonly options: readonly string[];
}

interface RootfsMount {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/**
 * A container's root file system, as the snapshotter describes it: one block mount. `loop` is how a host would mount
 * it; a VM gets the file itself.
 * @throws ShimError FAILED_PRECONDITION / ROOTFS_NOT_A_DISK that says which snapshotters give disks
 */
export function rootfsOf(mounts: readonly RootfsMount[]): HostFileSystem {
  const [mount] = mounts;
  const fsType = mount === undefined ? undefined : fsTypeOf(mount.type);
  if (mounts.length !== 1 || mount === undefined || fsType === undefined) {
    const shown = mounts.map(({ type }) => type).join(', ') || 'none';
    throw new ShimError(
      'FAILED_PRECONDITION',
      `the root file system is not one disk (mounts: ${shown}): use the blockfile or devmapper snapshotter, with ext4 or xfs`,
      { reason: 'ROOTFS_NOT_A_DISK', metadata: { mounts: shown } },
    );
  }
  const options = mount.options.filter((option) => !['loop', 'ro', 'rw'].includes(option));
  return { source: mount.source, fsType, readOnly: mount.options.includes('ro'), options };
}

function fsTypeOf(type: string): FsType | undefined {
  return type === 'ext4' || type === 'xfs' ? type : undefined;
}

/** The volume for a host's file or block device; mounted in the guest, or bare without `mount`. */
export async function volumeOf(path: string, readOnly: boolean, mount: RequestedSpec['mount']): Promise<RequestedSpec> {
  const stats = await stat(path).catch((error: unknown) => {
    throw new ShimError('FAILED_PRECONDITION', `${path} cannot be looked at: ${messageOf(error)}`, {
      reason: errnoOf(error) === 'ENOENT' ? 'SOURCE_NOT_FOUND' : 'SOURCE_NOT_USABLE',
      metadata: { path },
      cause: error,
    });
  });
  return {
    source: sourceOfPath(path, stats.isBlockDevice()),
    readOnly,
    cache: undefined,
    aio: 'auto',
    discard: undefined,
    detectZeroes: undefined,
    serial: '',
    queues: 0,
    logicalBlockSize: 0,
    physicalBlockSize: 0,
    mount,
  };
}

/**
 * The node of a host's block device, by its numbers (sysfs: /sys/dev/block/MAJOR:MINOR is a link that ends in its
 * name).
 */
export async function blockDeviceNode(major: number, minor: number): Promise<string> {
  try {
    return join('/dev', basename(await readlink(`/sys/dev/block/${major}:${minor}`)).replaceAll('!', '/'));
  } catch (error) {
    throw new ShimError('FAILED_PRECONDITION', `this host has no block device ${major}:${minor}`, {
      reason: 'SOURCE_NOT_FOUND',
      metadata: { major: String(major), minor: String(minor) },
      cause: error,
    });
  }
}

/**
 * The host itself has this block device read-only (sysfs: the member `ro`; `blockdev --setro`, a read-only loop device
 * or logical volume). A look that fails says no: a device that is not to be had is refused where it is attached.
 */
export async function isHostReadOnly(major: number, minor: number): Promise<boolean> {
  const text = await readFile(`/sys/dev/block/${major}:${minor}/ro`, 'utf8').catch(() => '');
  return text.trim() === '1';
}

/** Kata's members. Its runtime-rs spelt the file system `fs-type` until 2023, and `fs_type` for a while. */
const recordSchema = z.object({
  'volume-type': z.string().optional(),
  device: z.string(),
  fstype: z.string().optional(),
  'fs-type': z.string().optional(),
  fs_type: z.string().optional(),
  metadata: z.record(z.string(), z.string()).nullish(),
  options: z.array(z.string()).nullish(),
});

/** What a record says. */
interface DirectVolume {
  readonly device: string;
  readonly fstype: string;
  readonly options: readonly string[];
  readonly group: FsGroup | undefined;
}

/** A config.json whose direct-assigned volumes are devices, and the groups that they shall belong to. */
interface DirectVolumes {
  readonly config: OciConfig;
  /** By the mount's destination. Not of those that are only read. */
  readonly groups: ReadonlyMap<string, FsGroup>;
  /** The path that the record was found by, by the mount's destination. */
  readonly paths: ReadonlyMap<string, string>;
}

/**
 * config.json with each mount of a direct-assigned volume replaced by a mount of the device itself. The record is
 * Kata's: `DIRECTORY/<base64url(volumePath)>/mountInfo.json`, written by `kata-runtime direct-volume add` or a CSI
 * driver.
 * @throws ShimError INVALID_ARGUMENT / INVALID_DIRECT_VOLUME for a record that is there and cannot be understood: the
 *   mount is not taken for something else
 */
export async function withDirectVolumes(config: OciConfig, directory: string): Promise<DirectVolumes> {
  const groups = new Map<string, FsGroup>();
  const paths = new Map<string, string>();
  const mounts = await Promise.all(
    (config.mounts ?? []).map(async (mount) => {
      const { source, options } = mount;
      if (!source.startsWith('/')) return mount;
      const record = await directVolume(source, directory);
      if (record === undefined) return mount;
      paths.set(mount.destination, source);
      const readOnly = (options ?? []).includes('ro') || record.options.includes('ro');
      const own = record.options.filter((option) => option !== 'ro' && option !== 'rw');
      if (record.group !== undefined && !readOnly) groups.set(mount.destination, record.group);
      return {
        destination: mount.destination,
        type: record.fstype,
        source: record.device,
        options: [readOnly ? 'ro' : 'rw', ...own],
      };
    }),
  );
  return { config: { ...config, mounts }, groups, paths };
}

async function directVolume(volumePath: string, directory: string): Promise<DirectVolume | undefined> {
  const path = join(directory, base64Url(volumePath), 'mountInfo.json');
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    // A path that is too long for a record's name has none.
    if (['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
  try {
    if (text.length > RECORD_BYTES_MAX) throw new Error(`longer than ${RECORD_BYTES_MAX} bytes`);
    return directVolumeOf(JSON.parse(text));
  } catch (error) {
    throw invalidArgument(path, volumePath, `is no usable record: ${messageOf(error)}`, 'INVALID_DIRECT_VOLUME');
  }
}

/** @throws Error with what is wrong, in a few words */
function directVolumeOf(json: unknown): DirectVolume {
  const result = recordSchema.safeParse(json);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new Error(`${issue?.path.join('.') || 'the record'}: ${issue?.message ?? 'is not understood'}`);
  }
  const { device, metadata, options, ...record } = result.data;
  const fstype = record.fstype ?? record['fs-type'] ?? record.fs_type;
  if (fstype === undefined) throw new Error('it names no fstype');
  if (fsTypeOf(fstype) === undefined) throw new Error(`file system ${fstype} is not ext4 or xfs`);
  return { device, fstype, options: options ?? [], group: groupOf(metadata ?? {}) };
}

/** Kata's metadata `fsGroup` and `fsGroupChangePolicy`, which are Kubernetes' own. */
function groupOf({ fsGroup, fsGroupChangePolicy = 'Always' }: Record<string, string>): FsGroup | undefined {
  if (fsGroup === undefined) return undefined;
  const gid = /^\d{1,10}$/.test(fsGroup) ? Number(fsGroup) : Number.NaN;
  if (!(gid <= GID_MAX)) throw new Error(`metadata.fsGroup ${JSON.stringify(fsGroup)} is no group`);
  if (fsGroupChangePolicy !== 'Always' && fsGroupChangePolicy !== 'OnRootMismatch') {
    throw new Error(
      `metadata.fsGroupChangePolicy ${JSON.stringify(fsGroupChangePolicy)} is neither Always nor OnRootMismatch`,
    );
  }
  return { gid, always: fsGroupChangePolicy === 'Always' };
}
