import { invalidArgument, oneSentence, shimError, type ShimError } from '../base/errors.ts';
import type { DecidingReason } from '../base/reasons.ts';
import { GuestAgentError, type GuestAgent, type PciAddress } from './agent.ts';

/** Runs scripts (programs.ts) on disks in the guest, and makes facts or a ShimError of what they print. */

const SCRIPT_OUTPUT_BYTES_MAX = 256 * 1024;
const BUSY_MAX = 64;
const DETAIL_CHARS_MAX = 400;
const LINES_MAX = 4;

/** Where a disk is in the guest, and what it must say of itself. The serial has at most 20 bytes (virtio-blk). */
export interface DiskIdentity {
  readonly pci: Pick<PciAddress, 'domain' | 'bus' | 'slot'> & { readonly function?: number };
  readonly serial: string;
}

/** Something that keeps a disk or its file system in use. */
export interface BusyProcess {
  /** 0: the kernel itself. */
  readonly pid: number;
  /** The process's name (comm), `kernel` for pid 0. */
  readonly command: string;
  /**
   * `fd/N`, `cwd`, `root`, `exe`, `maps`: what lies on the disk or is the disk. `mount-namespace`: it is mounted where
   * that process lives. `mount:PATH`, `swap:DEVICE`, `holder:DEVICE` (as dm-crypt), `superblock:TYPE` (a file
   * system that is mounted nowhere any more and still in use), `mount`: the kernel's own uses.
   */
  readonly what: string;
}

/** What a script printed: lines `key=value`, in order, by key. */
export type Facts = ReadonlyMap<string, readonly string[]>;

interface Script extends Subject {
  readonly args: readonly string[];
  /** For the script's stdin. Never copied into a string; the caller zeroes it. */
  readonly input?: Uint8Array;
  readonly timeoutMs: number;
  /** The reason when the script ends badly without giving one. */
  readonly fallback: ScriptReason;
}

/**
 * Runs a script on one disk. Its first two arguments are the disk's PCI address and serial.
 * @throws ShimError with the reason that the script gave, or `fallback`; GUEST_TOOL_MISSING without a shell;
 * INVALID_ARGUMENT for an empty serial; and what GuestAgent.exec throws
 */
export async function runScript(agent: GuestAgent, text: string, script: Script): Promise<Facts> {
  const { identity, args, input, timeoutMs, fallback } = script;
  if (identity.serial === '') throw invalidArgument('serial', identity.serial, 'must not be empty');
  const argv = ['-c', text, 'sh', sysfsPci(identity.pci), identity.serial, ...args];
  const result = await agent
    .exec({ path: '/bin/sh', args: argv, ...(input && { input }), timeoutMs, outputBytesMax: SCRIPT_OUTPUT_BYTES_MAX })
    .catch((error: unknown) => {
      if (!(error instanceof GuestAgentError)) throw error;
      if (error.outOfProcesses) throw refusal('GUEST_OUT_OF_PROCESSES', script, error.message, error);
      throw refusal('GUEST_TOOL_MISSING', script, '/bin/sh cannot be run', error);
    });
  const facts = parseFacts(result.stdout.toString('utf8'));
  const [reason] = facts.get('error') ?? [];
  if (reason !== undefined || result.exitCode !== 0) {
    const detail = lastWords(result.stderr.toString('utf8'));
    throw refusal(reason !== undefined && isScriptReason(reason) ? reason : fallback, script, detail);
  }
  return facts;
}

/** Lines `key=value`, in order, by key; others are passed over. */
export function parseFacts(text: string): Facts {
  const facts = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const equals = line.indexOf('=');
    if (equals === -1) continue;
    const key = line.slice(0, equals);
    const values = facts.get(key);
    if (values === undefined) facts.set(key, [line.slice(equals + 1)]);
    else values.push(line.slice(equals + 1));
  }
  return facts;
}

/** The lines `busy=PID WHAT COMMAND`, at most 64. */
export function busyProcesses(facts: Facts): readonly BusyProcess[] {
  const found = (facts.get('busy') ?? []).flatMap((line) => busyProcess(line) ?? []);
  return found.slice(0, BUSY_MAX);
}

/** `PID WHAT COMMAND`; undefined for anything else. */
export function busyProcess(line: string): BusyProcess | undefined {
  const match = /^(\d+) (\S+) (.*)$/.exec(line);
  const [, pid = '', what = '', command = ''] = match ?? [];
  return match === null ? undefined : { pid: Number(pid), command, what };
}

/** The lines `left=POINT`: where the disk is still mounted in the agent's own mount namespace. */
export function mountPointsLeft(facts: Facts): readonly string[] {
  return (facts.get('left') ?? []).map(unescapePoint);
}

/** A mount point as mountinfo writes it (escapeForMountinfo), as a path. */
export function unescapePoint(point: string): string {
  return point.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

const SENTENCES = {
  GUEST_DISK_NOT_FOUND: 'the guest has no such disk',
  GUEST_DISK_MISMATCH: 'the guest has another disk there',
  GUEST_FS_MISMATCH: 'the disk holds another file system than the one asked for',
  GUEST_DISK_NOT_EMPTY: 'the disk is not empty, and is not what was asked for',
  GUEST_EMPTINESS_UNKNOWN: 'the disk cannot be proven to be empty, so nothing is made on it',
  GUEST_NO_FILESYSTEM: 'the disk has no file system and must not be formatted',
  GUEST_MOUNT_POINT_BUSY: 'something else is mounted at the mount point',
  GUEST_MOUNT_FAILED: 'the guest could not mount the disk',
  GUEST_PARTITION_NOT_FOUND: 'the disk has no such partition',
  GUEST_FSCK_FAILED: 'the file system has errors that were not mended, or could not be checked',
  GUEST_FORMAT_FAILED: 'the guest could not format the disk',
  GUEST_UNMOUNT_FAILED: 'the guest could not unmount the disk',
  GUEST_PROBE_FAILED: 'the guest could not tell who uses the disk',
  GUEST_SIZE_NOT_SEEN: 'the guest does not see that the disk has grown',
  GUEST_RESIZE_FAILED: 'the disk has grown, but the guest could not grow its file system',
  VOLUME_NOT_MOUNTED: 'the disk has grown, but its file system is not mounted where it was',
  GUEST_TOOL_MISSING: 'the guest lacks a program that this needs',
  GUEST_OUT_OF_PROCESSES: 'the guest could not start one more process',
  GUEST_DM_CRYPT_MISSING: 'the guest lacks kernel support for encrypted disks',
  LUKS_NO_HEADER: 'the disk is not an encrypted one',
  LUKS_WRONG_KEY: 'the key opens none of the key slots',
  LUKS_HEADER_DAMAGED: 'the LUKS header of the disk is damaged',
  LUKS_DEVICE_SWAPPED: 'the disk is not the one that was expected',
  LUKS_VERSION_UNSUPPORTED: 'the disk is encrypted, but not with LUKS2',
  LUKS_DEVICE_TRUNCATED: 'the disk is smaller than when it was encrypted',
  LUKS_INTEGRITY_ERROR: 'what the disk holds is not what was written to it',
  LUKS_INTEGRITY_MISMATCH: 'the disk and the request differ in whether integrity is protected',
  LUKS_OUT_OF_MEMORY: 'the guest has too little memory to derive the key',
  LUKS_DISK_IN_USE: 'something else in the guest uses the disk',
  LUKS_NAME_IN_USE: 'another mapping has that name',
  LUKS_FORMAT_FAILED: 'the guest could not encrypt the disk',
  LUKS_OPEN_FAILED: 'the guest could not open the encrypted disk',
  LUKS_CLOSE_FAILED: 'the guest could not close the encrypted disk',
  LUKS_STATUS_FAILED: 'the guest could not tell the state of the encrypted disk',
  LUKS_RESIZE_FAILED: 'the guest could not resize the encrypted disk',
  LUKS_RESIZE_UNSUPPORTED: 'a disk with integrity protection cannot be resized',
  LUKS_NOT_OPEN: 'the encrypted disk is not open',
} as const satisfies { readonly [R in DecidingReason]?: string };

/** What a script may give as its reason. */
type ScriptReason = keyof typeof SENTENCES;

/** Whoever is root in the guest can make a script say anything. */
function isScriptReason(text: string): text is ScriptReason {
  return Object.hasOwn(SENTENCES, text);
}

export interface Subject {
  readonly identity: DiskIdentity;
  readonly mountPoint?: string;
}

/** The error for a reason that a script gave, or that stands for its silence. */
export function refusal(reason: ScriptReason, subject: Subject, detail: string, cause?: unknown): ShimError {
  const { identity, mountPoint } = subject;
  const { serial } = identity;
  const pci = sysfsPci(identity.pci);
  const message = `${SENTENCES[reason]} (disk ${serial} at ${pci})${detail === '' ? '' : `: ${detail}`}`;
  const metadata = { pci, serial, ...(mountPoint !== undefined && { mountPoint }) };
  return shimError(reason, message, { metadata, cause });
}

/** `0000:01:05.0`, the name of a directory in /sys/bus/pci/devices. */
export function sysfsPci(pci: DiskIdentity['pci']): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  return `${hex(pci.domain, 4)}:${hex(pci.bus, 2)}:${hex(pci.slot, 2)}.${hex(pci.function ?? 0, 1)}`;
}

/**
 * What a script, or the program that it ran, said of its failure, as one line: its last lines, without the whole usage
 * text that mkfs and others print behind them (and without busybox's banner before that).
 */
export function lastWords(text: string): string {
  const lines = text.split(/[\r\n]+/).map((line) => line.replace(/\s+/g, ' ').trim());
  const said = lines.filter((line) => line !== '' && !/^BusyBox v/.test(line));
  const usage = said.findIndex((line) => /^usage:/i.test(line));
  // Usage alone says no more than that the arguments were wrong.
  const told = usage === -1 ? said : usage === 0 ? said.slice(0, 1) : said.slice(0, usage);
  // The reason comes last where there are several; what begins a longer story can be spared.
  const kept = told.slice(-LINES_MAX);
  while (kept.length > 1 && kept.join('; ').length > DETAIL_CHARS_MAX) kept.shift();
  return oneSentence(kept.join('\n')).slice(0, DETAIL_CHARS_MAX);
}
