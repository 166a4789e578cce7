import { invalidArgument, ShimError, type ShimCode } from '../base/errors.ts';
import { GuestAgentError, type GuestAgent, type PciAddress } from './agent.ts';
import { HOLDERS, PREPARE_MOUNT, UNMOUNT } from './scripts.ts';

const HOLDERS_TIMEOUT_MS = 10_000;
const SCRIPT_OUTPUT_BYTES_MAX = 256 * 1024;
const BUSY_MAX = 64;
const DETAIL_CHARS_MAX = 300;

/** Where a disk is in the guest, and what it must say of itself. The serial has at most 20 bytes (virtio-blk). */
export interface DiskIdentity {
  readonly pci: Pick<PciAddress, 'domain' | 'bus' | 'slot'> & { readonly function?: number };
  readonly serial: string;
}

export interface PrepareMountRequest extends DiskIdentity {
  readonly fsType: 'ext4' | 'xfs';
  /** Absolute, without `.`, `..`, doubled or trailing slashes, and not through symbolic links. Made if missing. */
  readonly mountPoint: string;
  /** Mount options besides `ro` and `rw`. */
  readonly options: readonly string[];
  /** `if_empty`: a disk without any signature that is zero at both ends is formatted. Nothing else ever is. */
  readonly format: 'never' | 'if_empty';
  readonly readOnly: boolean;
  readonly timeoutMs: number;
}

export interface PreparedMount {
  readonly device: string;
  readonly formatted: boolean;
  readonly uuid?: string;
}

export interface UnmountRequest extends DiskIdentity {
  /** Where it was mounted, for the error's metadata: all mounts of the disk go, wherever they are. */
  readonly mountPoint: string;
  /** Lazy (`umount -l`): takes the mounts out of sight although files are open. Kills nobody. */
  readonly force: boolean;
  readonly timeoutMs: number;
}

/** Something that keeps a disk or its file system in use. */
export interface BusyProcess {
  /** 0: the kernel itself. */
  readonly pid: number;
  /** The process's name (comm), `kernel` for pid 0. */
  readonly command: string;
  /**
   * `fd/N`, `cwd`, `root`, `exe`, `maps`: what lies on the disk or is the disk. `mount-namespace`: it is mounted where
   * that process lives. `mount:PATH`, `swap:DEVICE`, `holder:DEVICE` (as dm-crypt), `mount`: the kernel's own uses.
   */
  readonly what: string;
}

/**
 * The disk's device node, found by PCI address among guest-get-disks; undefined while the guest has none there. When
 * the agent knows the serial (it needs udev for it), that must match as well.
 */
export async function findDisk(agent: GuestAgent, identity: DiskIdentity): Promise<string | undefined> {
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
 * UNIMPLEMENTED/GUEST_TOOL_MISSING; INVALID_ARGUMENT; and what GuestAgent.exec throws. After GUEST_EXEC_TIMEOUT the
 * work goes on in the guest, and a second call waits for it.
 */
export async function prepareMount(agent: GuestAgent, request: PrepareMountRequest): Promise<PreparedMount> {
  const { fsType, mountPoint, options, format, readOnly, timeoutMs } = request;
  checkMountPoint(mountPoint);
  options.forEach(checkOption);
  const all = [readOnly ? 'ro' : 'rw', ...options].join(',');
  const facts = await runScript(agent, PREPARE_MOUNT, {
    identity: request,
    mountPoint,
    args: [fsType, mountPoint, escapeForMountinfo(mountPoint), all, format],
    timeoutMs,
    fallback: 'GUEST_MOUNT_FAILED',
  });
  const [device] = facts.get('device') ?? [];
  const [formatted] = facts.get('formatted') ?? [];
  if (device === undefined || formatted === undefined)
    throw refusal('GUEST_MOUNT_FAILED', { identity: request, mountPoint }, 'no result');
  const uuid = facts.get('uuid')?.[0];
  return { device, formatted: formatted === '1', ...(uuid !== undefined && uuid !== '' && { uuid }) };
}

/**
 * Unmounts every mount of the disk and of its partitions. `unmounted: true` is said when they are in no process's
 * mountinfo any more and nothing is stacked on the disk; with `force` only: not in the agent's own. A disk that is not
 * mounted at all is unmounted.
 * @throws ShimError FAILED_PRECONDITION: GUEST_DISK_NOT_FOUND, GUEST_DISK_MISMATCH, GUEST_UNMOUNT_FAILED; and what
 * GuestAgent.exec throws
 */
export async function unmount(
  agent: GuestAgent,
  request: UnmountRequest,
): Promise<{ unmounted: true } | { unmounted: false; busy: readonly BusyProcess[] }> {
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
  return unmounted === '1' ? { unmounted: true } : { unmounted: false, busy: busyProcesses(facts) };
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

type Facts = ReadonlyMap<string, readonly string[]>;

interface Script extends Subject {
  readonly args: readonly string[];
  readonly timeoutMs: number;
  /** The reason when the script ends badly without giving one. */
  readonly fallback: string;
}

async function runScript(agent: GuestAgent, text: string, script: Script): Promise<Facts> {
  const { identity, args, timeoutMs, fallback } = script;
  if (identity.serial === '') throw invalidArgument('serial', identity.serial, 'must not be empty');
  const argv = ['-c', text, 'sh', sysfsPci(identity.pci), identity.serial, ...args];
  const result = await agent
    .exec({ path: '/bin/sh', args: argv, timeoutMs, outputBytesMax: SCRIPT_OUTPUT_BYTES_MAX })
    .catch((error: unknown) => {
      if (!(error instanceof GuestAgentError)) throw error;
      throw refusal('GUEST_TOOL_MISSING', script, '/bin/sh cannot be run', error);
    });
  const facts = parseFacts(result.stdout.toString('utf8'));
  const [reason] = facts.get('error') ?? [];
  if (reason !== undefined || result.exitCode !== 0) {
    const detail = oneLine(result.stderr.toString('utf8'));
    throw refusal(reason !== undefined && reason in SENTENCES ? reason : fallback, script, detail);
  }
  return facts;
}

/** Lines `key=value`, in order, by key. */
function parseFacts(text: string): Facts {
  const facts = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const equals = line.indexOf('=');
    if (equals === -1) continue;
    const key = line.slice(0, equals);
    facts.set(key, [...(facts.get(key) ?? []), line.slice(equals + 1)]);
  }
  return facts;
}

function busyProcesses(facts: Facts): readonly BusyProcess[] {
  const found = (facts.get('busy') ?? []).flatMap((line) => {
    const match = /^(\d+) (\S+) (.*)$/.exec(line);
    const [, pid = '', what = '', command = ''] = match ?? [];
    return match === null ? [] : [{ pid: Number(pid), command, what }];
  });
  return found.slice(0, BUSY_MAX);
}

const SENTENCES: Readonly<Record<string, string>> = {
  GUEST_DISK_NOT_FOUND: 'the guest has no such disk',
  GUEST_DISK_MISMATCH: 'the guest has another disk there',
  GUEST_FS_MISMATCH: 'the disk holds another file system than the one asked for',
  GUEST_DISK_NOT_EMPTY: 'the disk has no file system but is not empty',
  GUEST_NO_FILESYSTEM: 'the disk has no file system and must not be formatted',
  GUEST_MOUNT_POINT_BUSY: 'something else is mounted at the mount point',
  GUEST_MOUNT_FAILED: 'the guest could not mount the disk',
  GUEST_FORMAT_FAILED: 'the guest could not format the disk',
  GUEST_UNMOUNT_FAILED: 'the guest could not unmount the disk',
  GUEST_PROBE_FAILED: 'the guest could not tell who uses the disk',
  GUEST_TOOL_MISSING: 'the guest lacks a program that this needs',
};

interface Subject {
  readonly identity: DiskIdentity;
  readonly mountPoint?: string;
}

function refusal(reason: string, subject: Subject, detail: string, cause?: unknown): ShimError {
  const { identity, mountPoint } = subject;
  const { serial } = identity;
  const code: ShimCode = reason === 'GUEST_TOOL_MISSING' ? 'UNIMPLEMENTED' : 'FAILED_PRECONDITION';
  const pci = sysfsPci(identity.pci);
  const message = `${SENTENCES[reason] ?? reason} (disk ${serial} at ${pci})${detail === '' ? '' : `: ${detail}`}`;
  const metadata = { pci, serial, ...(mountPoint !== undefined && { mountPoint }) };
  return new ShimError(code, message, { reason, metadata, cause });
}

/** `0000:01:05.0`, the name of a directory in /sys/bus/pci/devices. */
function sysfsPci(pci: DiskIdentity['pci']): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  return `${hex(pci.domain, 4)}:${hex(pci.bus, 2)}:${hex(pci.slot, 2)}.${hex(pci.function ?? 0, 1)}`;
}

/** As the kernel writes paths in mountinfo (fs/proc_namespace.c: octal for blank, tab, newline and backslash). */
function escapeForMountinfo(path: string): string {
  return path.replace(/[ \t\n\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`);
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

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim().slice(0, DETAIL_CHARS_MAX);
}
