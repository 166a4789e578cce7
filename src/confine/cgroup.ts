import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { access, constants, mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { sleep } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

/**
 * Control groups of version 2 (Documentation/admin-guide/cgroup-v2.rst), one for each QEMU, below `qshim` in the root
 * of the hierarchy.
 */

const CONTROLLERS = ['cpu', 'io', 'memory', 'pids'] as const;
/** The group that has all groups of QEMUs, below the root of the hierarchy. */
const PARENT = 'qshim';
const GROUP_HASH_DIGITS = 12;
const PERIOD_US = 100_000;
/** Threads of one thread pool of QEMU's; the main loop has one, and each iothread. */
const POOL_THREADS = 64;
/** QEMU's own, and those of its libraries. */
const OTHER_THREADS = 32;
/**
 * QEMU's buffer for the code that it has translated, which it fills before it empties it (tcg/region.c): an eighth of
 * the host's memory, this much at most.
 */
const TRANSLATED_MIB = 1024;
/** An empty group can be busy for a moment after its last process was seen to end. */
const REMOVE_TRIES = 50;
const REMOVE_PAUSE_MS = 20;

/** What a QEMU of a certain machine may use. */
export interface CellLimits {
  readonly memoryMib: number;
  readonly vcpus: number;
  readonly iothreads: number;
  /** Without it QEMU translates the guest's code, and has memory for that. */
  readonly kvm: boolean;
}

export interface LimitOptions {
  /** MiB beside the guest's memory: QEMU's own, and page cache. */
  readonly overheadMib: number;
  /** Lines for io.max, such as `8:0 rbps=1048576`. */
  readonly io: readonly string[];
}

/** The files of a group and what to write into them. */
export function cgroupFiles(
  limits: CellLimits,
  { overheadMib, io }: LimitOptions,
): readonly (readonly [string, string])[] {
  const { memoryMib, vcpus, iothreads, kvm } = limits;
  const memoryMaxMib = memoryMib + overheadMib + (kvm ? 0 : TRANSLATED_MIB);
  return [
    ['memory.max', String(memoryMaxMib * 1_048_576)],
    ['pids.max', String(vcpus + (iothreads + 1) * (POOL_THREADS + 1) + OTHER_THREADS)],
    // One CPU for each vCPU and each iothread, and one for the main loop.
    ['cpu.max', `${(vcpus + iothreads + 1) * PERIOD_US} ${PERIOD_US}`],
    ...io.map((line) => ['io.max', line] as const),
  ];
}

/** Of the group of the QEMU that has this directory. Unlike that of a sandbox of another daemon's. */
export function groupName(directory: string): string {
  const hash = createHash('sha256').update(directory).digest('hex').slice(0, GROUP_HASH_DIGITS);
  return `${basename(directory)}-${hash}`;
}

/** The place for groups of QEMUs. */
export class Cgroups {
  readonly #root: string;

  /** @param root a group whose controllers are there for its children */
  constructor(root: string) {
    this.#root = root;
  }

  /**
   * Makes a group with its limits and nobody in it. @returns its directory
   * @throws the system error
   */
  async make(name: string, files: readonly (readonly [string, string])[]): Promise<string> {
    const directory = join(this.#root, name);
    await mkdir(directory).catch((error: unknown) => {
      // Left by a daemon that was killed; its limits are written anew.
      if (errnoOf(error) !== 'EEXIST') throw error;
    });
    for (const [file, text] of files) await writeFile(join(directory, file), text);
    return directory;
  }
}

/** Puts a process into a group. @throws the system error */
export async function enterCgroup(directory: string, pid: number): Promise<void> {
  await writeFile(join(directory, 'cgroup.procs'), String(pid));
}

/** Removes a group whose processes have ended. @throws the system error */
export async function removeCgroup(directory: string): Promise<void> {
  for (let left = REMOVE_TRIES; ; left -= 1) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      if (errnoOf(error) !== 'EBUSY' || left === 0) throw error;
      await sleep(REMOVE_PAUSE_MS);
    }
  }
}

/**
 * Removes the group of a QEMU that an earlier daemon started with this directory, and that has ended: no record tells
 * of it. Never rejects.
 * @param mountinfo of this process (proc_pid_mountinfo(5)); tests have another
 */
export async function removeLeftCgroup(directory: string, log: Logger, mountinfo?: string): Promise<void> {
  try {
    const mount = mountOfCgroup2(mountinfo ?? (await readFile('/proc/self/mountinfo', 'utf8')));
    if (mount === undefined) return;
    const cgroup = join(mount, PARENT, groupName(directory));
    // Where nothing can be removed, nothing is tried that is not there.
    if (existsSync(cgroup)) await removeCgroup(cgroup);
  } catch (error) {
    log.warn({ directory, problem: messageOf(error) }, 'control group of an earlier daemon not removed');
  }
}

/**
 * The place for groups on this host.
 * @param mountinfo of this process (proc_pid_mountinfo(5)); tests have another
 * @throws Error that says what keeps it from being used
 */
export async function findCgroups(mountinfo?: string): Promise<Cgroups> {
  const mounts = mountinfo ?? (await readFile('/proc/self/mountinfo', 'utf8'));
  const mount = mountOfCgroup2(mounts);
  if (mount === undefined) throw new Error('no cgroup2 is mounted');
  const there = words(await readFile(join(mount, 'cgroup.controllers'), 'utf8'));
  const lacking = CONTROLLERS.filter((name) => !there.has(name));
  if (lacking.length > 0) throw new Error(`cgroup2 at ${mount} has no controller ${lacking.join(', ')}`);
  const root = join(mount, PARENT);
  await mkdir(root, { recursive: true });
  for (const directory of [mount, root]) await enable(directory);
  await access(root, constants.W_OK);
  return new Cgroups(root);
}

async function enable(directory: string): Promise<void> {
  const file = join(directory, 'cgroup.subtree_control');
  const on = words(await readFile(file, 'utf8'));
  const off = CONTROLLERS.filter((name) => !on.has(name));
  if (off.length > 0) await writeFile(file, off.map((name) => `+${name}`).join(' '));
}

/** Where cgroup2 is mounted, its root. */
export function mountOfCgroup2(mountinfo: string): string | undefined {
  for (const line of mountinfo.split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    if (after.startsWith('cgroup2 ')) return before.split(' ')[4];
  }
  return undefined;
}

function words(text: string): ReadonlySet<string> {
  return new Set(text.split(/\s+/).filter((word) => word !== ''));
}
