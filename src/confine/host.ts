import { access, constants, readFile } from 'node:fs/promises';
import { ExecaError } from 'execa';
import { messageOf } from '../base/errors.ts';
import { isShortage, run } from '../base/run.ts';
import type { Groups } from './cgroup.ts';
import { BWRAP, cellArguments } from './command.ts';
import type { CellPart, MissingPart } from './facts.ts';
import { findGroups, type GroupHost } from './groups.ts';
import { SETPRIV, preloadOf, qemuLayout, type QemuLayout } from './layout.ts';

/** What this host has of the walls around a QEMU, found out by trying. */
export interface HostWalls {
  /** What a QEMU needs in its root; undefined: no namespaces. */
  readonly layout: QemuLayout | undefined;
  /** QEMU gets a user of its own. */
  readonly users: boolean;
  /** setpriv can set up Landlock here, and the kernel has it. */
  readonly landlock: boolean;
  readonly groups: Groups | undefined;
  readonly missing: readonly MissingPart[];
}

export interface WallOptions extends GroupHost {
  readonly qemuBinary: string;
  /** A library that is preloaded into QEMU, or `system`. */
  readonly allocator: string;
  /** The first user id of the range, for a trial. */
  readonly uid: number;
}

const TRIAL_TIMEOUT_MS = 20_000;
/** EAGAIN, ENOMEM, EMFILE and ENFILE in words (LC_ALL=C), of a program that met them. */
const SHORT_WORDS = /Resource temporarily unavailable|Cannot allocate memory|Too many open files/;
/** With the packages of Debian that bring them. */
const PROGRAMS = [
  [BWRAP, 'bubblewrap'],
  [SETPRIV, 'util-linux'],
] as const;

/**
 * Capabilities that the daemon needs so that QEMUs can have users of their own, by their numbers in
 * linux/capability.h: to make namespaces and mounts, to change user, group and bounding set, to give files away and to
 * reach them, to signal and to look at processes of other users.
 */
const NEEDED_CAPABILITIES = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_FOWNER: 3,
  CAP_KILL: 5,
  CAP_SETGID: 6,
  CAP_SETUID: 7,
  CAP_SETPCAP: 8,
  CAP_NET_ADMIN: 12,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
} as const;

/** Those that are needed and not among a process's effective ones (CapEff of proc_pid_status(5)). */
export function lackingCapabilities(status: string): readonly string[] {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return Object.entries(NEEDED_CAPABILITIES)
    .filter(([, number]) => ((effective >> BigInt(number)) & 1n) === 0n)
    .map(([name]) => name);
}

/**
 * Looks at this host. What cannot be had is missing, with why.
 * @throws the error by which something could not be tried, for want of descriptors, processes, memory or time: that
 *   says nothing about this host
 */
export async function lookAtWalls(options: WallOptions): Promise<HostWalls> {
  const missing: MissingPart[] = [];
  const lacks = (part: CellPart, why: string): undefined => {
    missing.push({ part, why });
  };
  const failed = (part: CellPart, error: unknown): undefined => {
    if (isNotTried(error)) throw error;
    lacks(part, messageOf(error));
    return undefined;
  };
  const lacking = lackingCapabilities(await readFile('/proc/self/status', 'utf8'));
  const layout = await layoutFor(options).catch((error: unknown) => failed('namespaces', error));
  const cell = { layout, users: lacking.length === 0, landlock: false };
  const none = { layout: undefined, users: false, landlock: false };
  const landlock = cell.users && (await setprivHasLandlock());
  const works =
    (landlock && (await tried({ ...cell, landlock }, options)) === undefined ? { ...cell, landlock } : undefined) ??
    (await orMissing(cell, options, lacks)) ??
    none;
  if (lacking.length > 0) lacks('uid', `the daemon lacks ${lacking.join(', ')}`);
  else if (!works.users) lacks('uid', 'without namespaces the user would reach no file of its sandbox');
  if (!cell.users) lacks('landlock', 'it comes with the user');
  // Where setpriv has it and a trial with it fails, the kernel has none: nothing is missing that could be had.
  else if (!landlock) lacks('landlock', 'this setpriv has no --landlock-access (util-linux 2.40 has)');
  const groups = await groupsFor(works, options).catch((error: unknown) => failed('cgroup', error));
  return { ...works, groups, missing };
}

type Tried = Pick<HostWalls, 'layout' | 'users' | 'landlock'>;

/** QEMU is put into its group while bwrap waits: one that is started without bwrap would never be in it. */
async function groupsFor({ layout }: Tried, host: GroupHost): Promise<Groups> {
  if (layout === undefined) throw new Error('it comes with the namespaces');
  return await findGroups(host);
}

async function orMissing(
  cell: Tried,
  options: WallOptions,
  lacks: (part: CellPart, why: string) => void,
): Promise<Tried | undefined> {
  if (cell.layout === undefined) return undefined;
  const why = await tried(cell, options);
  if (why === undefined) return cell;
  lacks('namespaces', why);
  return undefined;
}

async function layoutFor({ qemuBinary, allocator }: WallOptions): Promise<QemuLayout> {
  for (const [file, name] of PROGRAMS) {
    await access(file, constants.X_OK).catch((error: unknown) => {
      throw new Error(`${file} of the package ${name} cannot be run: ${messageOf(error)}`, { cause: error });
    });
  }
  const preload = await preloadOf(allocator);
  return await qemuLayout(qemuBinary, preload === undefined ? [] : [preload]);
}

async function setprivHasLandlock(): Promise<boolean> {
  const { stdout } = await run(SETPRIV, ['--help'], { timeout: TRIAL_TIMEOUT_MS, stdin: 'ignore' });
  return stdout.includes('--landlock-access');
}

/** Runs QEMU in a cell, only to hear its version; in words what kept it from running, if anything did. */
async function tried({ layout, users, landlock }: Tried, { allocator, uid }: WallOptions): Promise<string | undefined> {
  if (layout === undefined) return 'it is not known what QEMU needs';
  const preload = await preloadOf(allocator);
  const args = cellArguments({
    layout,
    uid: users ? uid : undefined,
    ...{ groups: [], readable: [], copied: [], devices: ['/dev/null', '/dev/urandom'] },
    ...{ preload, landlock, tied: false, args: ['-version'] },
  });
  try {
    await run(BWRAP, args, { timeout: TRIAL_TIMEOUT_MS, stdin: 'ignore', env: { LC_ALL: 'C' } });
    return undefined;
  } catch (error) {
    if (isNotTried(error)) throw error;
    const said = saidBy(error);
    return (said === '' ? messageOf(error) : said).slice(0, 300);
  }
}

function isNotTried(error: unknown): boolean {
  if (error instanceof ExecaError && error.timedOut) return true;
  return isShortage(error) || SHORT_WORDS.test(saidBy(error));
}

function saidBy(error: unknown): string {
  if (!(error instanceof Error) || !('stderr' in error)) return '';
  return typeof error.stderr === 'string' ? error.stderr.trim() : '';
}
