import { checkMountOption, checkMountPoint } from '../base/mount-rules.ts';
import type { GuestAgent } from './agent.ts';
import { guestScript } from './programs.ts';
import {
  busyProcesses,
  mountPointsLeft,
  refusal,
  runScript,
  type BusyProcess,
  type DiskIdentity,
} from './run-script.ts';

export type { BusyProcess, DiskIdentity } from './run-script.ts';

const PREPARE_MOUNT = guestScript('prepare-mount');
const UNMOUNT = guestScript('unmount');
const RESIZE_DISK = guestScript('resize-disk');

const SECTOR_BYTES = 512;

/** How it is proven that a disk is empty, before something is made on it. blkid is asked in any case. */
export interface EmptinessProof {
  /** What the host has seen: all zero; noise to which nobody ever wrote; data; or `look`: the guest reads all of it. */
  readonly seen: 'zero' | 'noise' | 'data' | 'look';
  /** A disk with more is not read in the guest, and so not proven to be empty. */
  readonly readBytesMax: number;
}

export interface PrepareMountRequest extends DiskIdentity {
  readonly fsType: 'ext4' | 'xfs';
  /** Absolute, without `.`, `..`, doubled or trailing slashes, and not through symbolic links. Made if missing. */
  readonly mountPoint: string;
  /** Mount options besides `ro` and `rw`. */
  readonly options: readonly string[];
  /** `if_empty`: a disk without any signature that is proven to be empty is formatted. Nothing else ever is. */
  readonly format: 'never' | 'if_empty';
  readonly readOnly: boolean;
  readonly proof?: EmptinessProof;
  /** By number; left out: the whole disk. */
  readonly partition?: number | undefined;
  /** Checks an ext4 file system before it is mounted (e2fsck); left out: never. */
  readonly fsck?: 'repair' | 'full' | undefined;
  readonly timeoutMs: number;
}

export interface PreparedMount {
  readonly device: string;
  readonly formatted: boolean;
  readonly uuid?: string;
  /** What fsck found; left out when it was not asked. */
  readonly checked?: string;
}

export interface UnmountRequest extends DiskIdentity {
  /** Where it was mounted, for the error's metadata: all mounts of the disk go, wherever they are. */
  readonly mountPoint: string;
  /** Lazy (`umount -l`): takes the mounts out of sight although files are open. Kills nobody. */
  readonly force: boolean;
  readonly timeoutMs: number;
}

/**
 * The disk's device node, found by PCI address among guest-get-disks; undefined while the guest has none there. When
 * the agent knows the serial (it needs udev for it), that must match as well.
 */
export async function findDisk(agent: Pick<GuestAgent, 'disks'>, identity: DiskIdentity): Promise<string | undefined> {
  const { pci, serial } = identity;
  const disk = (await agent.disks()).find(
    (each) =>
      !each.partition &&
      each.pci?.domain === pci.domain &&
      each.pci.bus === pci.bus &&
      each.pci.slot === pci.slot &&
      each.pci.function === (pci.function ?? 0),
  );
  return disk === undefined || (disk.serial !== undefined && disk.serial !== serial) ? undefined : disk.name;
}

/**
 * Mounts a disk, formatting it first if that is asked for and the disk is blank, in one guest-exec. The disk is found
 * by its PCI address and touched only if its serial is the expected one; the mount is read back from mountinfo. If the
 * same file system is there already as asked (an earlier call that was not heard to the end), that is success.
 * @throws ShimError FAILED_PRECONDITION: GUEST_DISK_NOT_FOUND, GUEST_DISK_MISMATCH, GUEST_FS_MISMATCH,
 * GUEST_DISK_NOT_EMPTY, GUEST_EMPTINESS_UNKNOWN, GUEST_NO_FILESYSTEM, GUEST_MOUNT_POINT_BUSY, GUEST_MOUNT_FAILED,
 * GUEST_FORMAT_FAILED, GUEST_PARTITION_NOT_FOUND, GUEST_FSCK_FAILED; UNIMPLEMENTED/GUEST_TOOL_MISSING;
 * INVALID_ARGUMENT; and what GuestAgent.exec throws. After GUEST_EXEC_TIMEOUT the work goes on in the guest, and a
 * second call waits for it.
 */
export async function prepareMount(agent: GuestAgent, request: PrepareMountRequest): Promise<PreparedMount> {
  const { mountPoint, timeoutMs } = request;
  const facts = await runScript(agent, PREPARE_MOUNT, {
    identity: request,
    mountPoint,
    args: [...mountArguments(request), ...proofArguments(request), String(request.partition ?? 0)],
    timeoutMs,
    fallback: 'GUEST_MOUNT_FAILED',
  });
  const [device] = facts.get('device') ?? [];
  const [formatted] = facts.get('formatted') ?? [];
  if (device === undefined || formatted === undefined)
    throw refusal('GUEST_MOUNT_FAILED', { identity: request, mountPoint }, 'no result');
  const uuid = facts.get('uuid')?.[0];
  const checked = facts.get('checked')?.[0];
  return {
    device,
    formatted: formatted === '1',
    ...(uuid !== undefined && uuid !== '' && { uuid }),
    ...(checked !== undefined && { checked }),
  };
}

/**
 * `mountedAt`: where it is still mounted for the agent. Of several mounts, some may be gone although the disk is busy.
 */
export type Unmounted =
  | { readonly unmounted: true }
  | { readonly unmounted: false; readonly busy: readonly BusyProcess[]; readonly mountedAt: readonly string[] };

/**
 * Unmounts every mount of the disk and of its partitions. `unmounted: true` is said when they are in no process's
 * mountinfo any more, nothing is stacked on the disk and no process has it open; with `force` only: not in the agent's
 * own. A disk that is not mounted at all is unmounted. Where something else is mounted on top, that stays: without
 * `force` nothing is unmounted then.
 * @throws ShimError FAILED_PRECONDITION: GUEST_DISK_NOT_FOUND, GUEST_DISK_MISMATCH, GUEST_UNMOUNT_FAILED; and what
 * GuestAgent.exec throws
 */
export async function unmount(agent: GuestAgent, request: UnmountRequest): Promise<Unmounted> {
  const { mountPoint, force, timeoutMs } = request;
  const facts = await runScript(agent, UNMOUNT, {
    identity: request,
    mountPoint,
    args: [force ? '1' : '0'],
    timeoutMs,
    fallback: 'GUEST_UNMOUNT_FAILED',
  });
  const [unmounted] = facts.get('unmounted') ?? [];
  if (unmounted === undefined) throw refusal('GUEST_UNMOUNT_FAILED', { identity: request, mountPoint }, 'no result');
  if (unmounted === '1') return { unmounted: true };
  return { unmounted: false, busy: busyProcesses(facts), mountedAt: mountPointsLeft(facts) };
}

export interface ResizeDiskRequest extends DiskIdentity {
  /** What the disk has, once it has grown: waited for, at most 20 s. */
  readonly sizeBytes: number;
  /** Where the file system is mounted that is to fill it; undefined: none is to. */
  readonly mountPoint: string | undefined;
  readonly timeoutMs: number;
}

/**
 * After a disk has grown: waits until the guest's kernel has taken note, and grows the file system that is mounted at
 * the mount point, if there is to be one.
 * @returns the type of the file system that was grown; undefined when none was to be
 * @throws ShimError FAILED_PRECONDITION: GUEST_SIZE_NOT_SEEN, GUEST_RESIZE_FAILED, VOLUME_NOT_MOUNTED (the disk is not
 * mounted there, in the agent's mount namespace), GUEST_DISK_NOT_FOUND, GUEST_DISK_MISMATCH; and what GuestAgent.exec
 * throws
 */
export async function resizeDisk(agent: GuestAgent, request: ResizeDiskRequest): Promise<string | undefined> {
  const { sizeBytes, mountPoint, timeoutMs } = request;
  const facts = await runScript(agent, RESIZE_DISK, {
    identity: request,
    ...(mountPoint !== undefined && { mountPoint }),
    args: [String(sizeBytes / SECTOR_BYTES), pointArgument(mountPoint)],
    timeoutMs,
    fallback: 'GUEST_RESIZE_FAILED',
  });
  const [grown] = facts.get('grown') ?? [];
  return grown === '' ? undefined : grown;
}

/** A mount point for a script that looks for it in mountinfo; empty when there is none to look for. */
export function pointArgument(mountPoint: string | undefined): string {
  return mountPoint === undefined ? '' : escapeForMountinfo(mountPoint);
}

/** As the kernel writes paths in mountinfo (fs/proc_namespace.c: octal for blank, tab, newline and backslash). */
function escapeForMountinfo(path: string): string {
  return path.replace(/[ \t\n\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

/**
 * The arguments that describe a mount to a script: type, mount point, the same as in mountinfo, options, format,
 * fsck.
 * @throws ShimError INVALID_ARGUMENT: INVALID_MOUNT_POINT, INVALID_MOUNT_OPTION
 */
export function mountArguments(
  mount: Omit<PrepareMountRequest, keyof DiskIdentity | 'timeoutMs' | 'proof'>,
): readonly string[] {
  const { fsType, mountPoint, options, format, readOnly } = mount;
  checkMountPoint('mountPoint', mountPoint);
  for (const option of options) checkMountOption('options', option);
  const all = [readOnly ? 'ro' : 'rw', ...options].join(',');
  return [fsType, mountPoint, escapeForMountinfo(mountPoint), all, format, mount.fsck ?? 'never'];
}

/** Of the time for the whole script, so that the script itself can say that it was too short for reading. */
const READING_SHARE = 0.7;
const READ_BYTES_MAX = 16 * 1024 ** 3;

/** EMPTINESS, the most bytes to read, and for how many seconds. */
export function proofArguments(request: {
  readonly proof?: EmptinessProof;
  readonly timeoutMs: number;
}): readonly string[] {
  const { proof = { seen: 'look', readBytesMax: READ_BYTES_MAX }, timeoutMs } = request;
  const seconds = Math.max(1, Math.floor((timeoutMs * READING_SHARE) / 1000));
  return [proof.seen, String(proof.readBytesMax), String(seconds)];
}
