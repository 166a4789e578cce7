import { access, constants, readFile } from 'node:fs/promises';
import { execa } from 'execa';
import { messageOf } from '../base/errors.ts';
import { findCgroups, type Cgroups } from './cgroup.ts';
import { BWRAP, cellArguments } from './command.ts';
import type { CellPart, MissingPart } from './facts.ts';
import { SETPRIV, qemuLayout, type QemuLayout } from './layout.ts';

/** What this host has of the walls around a QEMU, found out by trying. */
export interface HostWalls {
  /** What a QEMU needs in its root; undefined: no namespaces. */
  readonly layout: QemuLayout | undefined;
  /** QEMU gets a user of its own. */
  readonly users: boolean;
  readonly cgroups: Cgroups | undefined;
  readonly missing: readonly MissingPart[];
}

export interface WallOptions {
  readonly qemuBinary: string;
  /** A library that is preloaded into QEMU, or `system`. */
  readonly allocator: string;
  /** The first user id of the range, for a trial. */
  readonly uid: number;
}

const TRIAL_TIMEOUT_MS = 20_000;

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

/** Looks at this host. Never rejects: what cannot be had is missing, with why. */
export async function lookAtWalls(options: WallOptions): Promise<HostWalls> {
  const missing: MissingPart[] = [];
  const lacks = (part: CellPart, why: string): undefined => void missing.push({ part, why });
  const without = async (): Promise<readonly string[]> =>
    lackingCapabilities(await readFile('/proc/self/status', 'utf8'));
  const lacking = await without();
  const users = lacking.length === 0;
  const layout = await tryNamespaces(options, users).catch((error: unknown) => lacks('namespaces', whyNot(error)));
  if (!users) lacks('uid', `the daemon lacks ${lacking.join(', ')}`);
  else if (layout === undefined) lacks('uid', 'without namespaces the user would reach no file of its sandbox');
  const cgroups = await findCgroups().catch((error: unknown) => lacks('cgroup', messageOf(error)));
  lacks('landlock', 'nothing here can set it up before QEMU runs');
  return { layout, users: users && layout !== undefined, cgroups, missing };
}

/** Runs QEMU in a cell, only to hear its version. @throws Error with what kept it from running */
async function tryNamespaces({ qemuBinary, allocator, uid }: WallOptions, users: boolean): Promise<QemuLayout> {
  for (const file of [BWRAP, SETPRIV]) await access(file, constants.X_OK);
  const preload = allocator.startsWith('/') ? allocator : undefined;
  const layout = await qemuLayout(qemuBinary, preload === undefined ? [] : [preload]);
  const args = cellArguments({
    layout,
    uid: users ? uid : undefined,
    ...{ groups: [], readable: [], writable: [], copied: [], devices: ['/dev/null', '/dev/urandom'] },
    ...{ preload, tied: false, args: ['-version'] },
  });
  await execa(BWRAP, args, { timeout: TRIAL_TIMEOUT_MS, stdin: 'ignore', env: { LC_ALL: 'C' } });
  return layout;
}

function whyNot(error: unknown): string {
  const said =
    error instanceof Error && 'stderr' in error && typeof error.stderr === 'string' ? error.stderr.trim() : '';
  return (said === '' ? messageOf(error) : said).slice(0, 300);
}
