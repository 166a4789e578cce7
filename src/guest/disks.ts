import { invalidArgument } from '../base/errors.ts';
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
const HOLDERS = guestScript('holders');
const RESIZE_DISK = guestScript('resize-disk');

const SECTOR_BYTES = 512;
const HOLDERS_TIMEOUT_MS = 10_000;

export interface PrepareMountRequest extends DiskIdentity {
  readonly fsType: 'ext4' | 'xfs';
  /** Absolute, without `.`, `..`, doubled or trailing slashes, and not through symbolic links. Made if missing. */
  readonly mountPoint: string;
  /** Mount options besides `ro` and `rw`. */
  readonly options: readonly string[];
  /** `if_empty`: a disk without any signature that is zero at both ends is formatted. Nothing else ever is. */
  readonly format: 'never' | 'if_empty';
  readonly readOnly: boolean;
  /** By number; left out: the whole disk. */
  readonly partition?: number | undefined;
  /** Checks an ext4 file system before it is mounted (e2fsck); left out: never. */
  readonly fsck?: 'repair' | 'full' | undefined;
  /**
   * The host has proven that nobody ever wrote to it, though what the guest reads is noise. blkid is asked all the
   * same.
   */
  readonly unwritten?: boolean;
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
 * GUEST_DISK_NOT_EMPTY, GUEST_NO_FILESYSTEM, GUEST_MOUNT_POINT_BUSY, GUEST_MOUNT_FAILED, GUEST_FORMAT_FAILED;
 * GUEST_PARTITION_NOT_FOUND, GUEST_FSCK_FAILED; UNIMPLEMENTED/GUEST_TOOL_MISSING; INVALID_ARGUMENT; and what
 * GuestAgent.exec throws. After GUEST_EXEC_TIMEOUT the work goes on in the guest, and a second call waits for it.
 */
export async function prepareMount(agent: GuestAgent, request: PrepareMountRequest): Promise<PreparedMount> {
  const { mountPoint, timeoutMs } = request;
  const facts = await runScript(agent, PREPARE_MOUNT, {
    identity: request,
    mountPoint,
    args: [...mountArguments(request), request.unwritten === true ? '1' : '0', String(request.partition ?? 0)],
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
 * mountinfo any more and nothing is stacked on the disk; with `force` only: not in the agent's own. A disk that is not
 * mounted at all is unmounted.
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

/**
 * Who uses a disk: mounts of it or of its partitions in any namespace, swap, device-mapper and the like on top of it,
 * files open on it, and processes that have the disk itself open. At most 64 are named.
 * @throws as `unmount`, with GUEST_PROBE_FAILED
 */
export async function holders(agent: GuestAgent, identity: DiskIdentity): Promise<readonly BusyProcess[]> {
  const facts = await runScript(agent, HOLDERS, {
    identity,
    args: [],
    timeoutMs: HOLDERS_TIMEOUT_MS,
    fallback: 'GUEST_PROBE_FAILED',
  });
  return busyProcesses(facts);
}

export interface ResizeDiskRequest extends DiskIdentity {
  /** What the disk has, once it has grown: waited for, at most 20 s. */
  readonly sizeBytes: number;
  /** Let the file system that is mounted from it fill it. */
  readonly grow: boolean;
  readonly timeoutMs: number;
}

/**
 * After a disk has grown: waits until the guest's kernel has taken note, and grows the mounted file system if asked to.
 * @returns the type of the file system that was grown; undefined when none was
 * @throws ShimError FAILED_PRECONDITION: GUEST_SIZE_NOT_SEEN, GUEST_RESIZE_FAILED, GUEST_DISK_NOT_FOUND,
 * GUEST_DISK_MISMATCH; and what GuestAgent.exec throws
 */
export async function resizeDisk(agent: GuestAgent, request: ResizeDiskRequest): Promise<string | undefined> {
  const { sizeBytes, grow, timeoutMs } = request;
  const facts = await runScript(agent, RESIZE_DISK, {
    identity: request,
    args: [String(sizeBytes / SECTOR_BYTES), grow ? '1' : '0'],
    timeoutMs,
    fallback: 'GUEST_RESIZE_FAILED',
  });
  const [grown] = facts.get('grown') ?? [];
  return grown === '' ? undefined : grown;
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
  mount: Omit<PrepareMountRequest, keyof DiskIdentity | 'timeoutMs' | 'unwritten'>,
): readonly string[] {
  const { fsType, mountPoint, options, format, readOnly } = mount;
  checkMountPoint(mountPoint);
  options.forEach(checkOption);
  const all = [readOnly ? 'ro' : 'rw', ...options].join(',');
  return [fsType, mountPoint, escapeForMountinfo(mountPoint), all, format, mount.fsck ?? 'never'];
}

function checkMountPoint(path: string): void {
  const parts = path.split('/').slice(1);
  // The empty part of "/" itself is refused as well: the root is never a mount point for a volume.
  const plain = path.startsWith('/') && parts.every((part) => part !== '' && part !== '.' && part !== '..');
  if (!plain || /\p{Cc}/u.test(path) || Buffer.byteLength(path) > 4000) {
    throw invalidArgument('mountPoint', path, 'must be an absolute, plain path in the guest', 'INVALID_MOUNT_POINT');
  }
}

function checkOption(option: string): void {
  if (!/^[A-Za-z0-9_.:/@%+-][A-Za-z0-9_.:/@%+=-]*$/.test(option) || option === 'ro' || option === 'rw') {
    throw invalidArgument('options', option, 'is not a plain mount option', 'INVALID_MOUNT_OPTION');
  }
}
