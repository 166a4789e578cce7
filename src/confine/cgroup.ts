import { createHash } from 'node:crypto';
import { access, constants, mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errnoOf } from '../base/errors.ts';

/**
 * Control groups of version 2 (Documentation/admin-guide/cgroup-v2.rst), one for each QEMU: what is in them, and those
 * that qshim makes itself, below `qshim` in the root of the hierarchy. Where systemd manages the host: scope.ts.
 */

const CONTROLLERS = ['cpu', 'io', 'memory', 'pids'] as const;
/** The group that has all groups of QEMUs, below the root of the hierarchy. */
const PARENT = 'qshim';
const GROUP_HASH_DIGITS = 12;
export const PERIOD_US = 100_000;
/** Threads of one thread pool of QEMU's; the main loop has one, and each iothread. */
const POOL_THREADS = 64;
/** QEMU's own, and those of its libraries. */
const OTHER_THREADS = 32;
/**
 * QEMU's buffer for the code that it has translated, which it fills before it empties it (tcg/region.c): an eighth of
 * the host's memory, this much at most.
 */
const TRANSLATED_MIB = 1024;

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

/** The files of a group, and what stands in them as the kernel wants it written. */
export type GroupFiles = readonly (readonly [string, string])[];

/** A way to have control groups on this host. */
export interface Groups {
  /** Who makes them, in words. */
  readonly by: string;
  /** Where a group of this name is, or will be. */
  directoryOf(name: string): string;
  /**
   * Makes what can be made before there is a process.
   * @throws the system error
   */
  make(directory: string, files: GroupFiles): Promise<void>;
  /**
   * Puts a process into its group, and looks that it is there, with the limits.
   * @throws Error that says what was seen instead, or the system error
   */
  enter(directory: string, files: GroupFiles, pid: number): Promise<void>;
}

/** What a group shall allow to a machine. */
export function cgroupFiles(limits: CellLimits, { overheadMib, io }: LimitOptions): GroupFiles {
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

/** Groups that qshim makes itself. */
export class Cgroups implements Groups {
  readonly #root: string;
  readonly by: string;

  /** @param root a group whose controllers are there for its children */
  constructor(root: string) {
    this.#root = root;
    this.by = `below ${root}`;
  }

  directoryOf(name: string): string {
    return join(this.#root, name);
  }

  async make(directory: string, files: GroupFiles): Promise<void> {
    await mkdir(directory).catch((error: unknown) => {
      // Left by a daemon that was killed; its limits are written anew.
      if (errnoOf(error) !== 'EEXIST') throw error;
    });
    for (const [file, text] of files) await writeFile(join(directory, file), text);
  }

  async enter(directory: string, files: GroupFiles, pid: number): Promise<void> {
    await writeFile(join(directory, 'cgroup.procs'), String(pid));
    const unlike = await unlikeGroup(directory, files, pid);
    if (unlike !== undefined) throw new Error(unlike);
  }
}

/** Whether the group has this process. @throws the system error, unless there is no such group */
export async function isInGroup(directory: string, pid: number): Promise<boolean> {
  const text = await readFile(join(directory, 'cgroup.procs'), 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  });
  return words(text).has(String(pid));
}

/**
 * What is seen of a process's group that is not as it shall be; undefined: the process is in it, with these limits.
 * @throws the system error
 */
export async function unlikeGroup(directory: string, files: GroupFiles, pid: number): Promise<string | undefined> {
  if (!(await isInGroup(directory, pid))) return `process ${pid} is not in ${directory}`;
  for (const [file, text] of files) {
    const path = join(directory, file);
    const seen = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    });
    if (seen === undefined) return `there is no ${path}`;
    if (!seen.split('\n').some((line) => isLimit(line, text))) {
      return `${path} has ${JSON.stringify(seen.trim())}, and not ${JSON.stringify(text)}`;
    }
  }
  return undefined;
}

/** A line of io.max names all kinds of limits, also those that nobody set. */
function isLimit(line: string, text: string): boolean {
  const [first, ...rest] = line.split(' ');
  const [wanted, ...others] = text.split(' ');
  return first === wanted && others.every((word) => rest.includes(word));
}

/**
 * Where cgroup2 is, with all controllers that limits need.
 * @param mountinfo of this process (proc_pid_mountinfo(5)); tests have another
 * @throws Error that says what keeps it from being used
 */
export async function usableCgroup2(mountinfo?: string): Promise<string> {
  const mounts = mountinfo ?? (await readFile('/proc/self/mountinfo', 'utf8'));
  const mount = mountOfCgroup2(mounts);
  if (mount === undefined) throw new Error('no cgroup2 is mounted');
  const there = words(await readFile(join(mount, 'cgroup.controllers'), 'utf8'));
  const lacking = CONTROLLERS.filter((name) => !there.has(name));
  if (lacking.length > 0) throw new Error(`cgroup2 at ${mount} has no controller ${lacking.join(', ')}`);
  return mount;
}

/** Where a group is that qshim made itself. */
export function ownGroup(mount: string, name: string): string {
  return join(mount, PARENT, name);
}

/**
 * The place for groups that qshim makes itself.
 * @throws the system error when it cannot be written
 */
export async function openCgroups(mount: string): Promise<Groups> {
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
