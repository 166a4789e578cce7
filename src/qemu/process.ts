import { once } from 'node:events';
import { createReadStream, createWriteStream, type ReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { constants } from 'node:os';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { ProcessHandle } from '../base/native.ts';
import { readProcStat, type ProcStat } from '../base/proc-stat.ts';
import { run } from '../base/run.ts';
import { allocatorEnvironment } from './allocator.ts';

/**
 * QEMU as a process, and what it lists:
 *
 *     argv.ts: the command line ─▶ process.ts: spawn ─▶ connect.ts: its QMP socket ─▶ inventory.ts: what it has
 *     find.ts: /proc ─▶ process.ts: adopt                     bare-qemu.ts: one without a machine, for images
 *     accelerator.ts, aio.ts, allocator.ts, acpi-hotplug.ts: what works here, tried out
 */

/** How a QEMU process ended. An adopted process is not our child: its code is not to be had, and is left out. */
export interface ExitInfo {
  readonly code: number | undefined;
  readonly signal: string | undefined;
}

/** A process and the moment it began, in clock ticks since boot (field 22 of /proc/PID/stat): rules out pid reuse. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTicks: number;
}

/** Tells by its command line whether a process is the one that is looked for. */
export type IsOurs = (args: readonly string[]) => boolean;

const WATCH_INTERVAL_MS = 200;

/** One QEMU process, in a session of its own: it outlives the daemon, and a daemon that comes back adopts it. */
export class QemuProcess {
  readonly identity: ProcessIdentity;
  /** Settles when the process has been seen to be gone; never rejects. */
  readonly exited: Promise<ExitInfo>;
  /** Undefined for one that this daemon started: until its exit was seen, nobody else can have its pid. */
  readonly #isOurs: IsOurs | undefined;
  #exit: ExitInfo | undefined;

  private constructor(identity: ProcessIdentity, exited: Promise<ExitInfo>, isOurs?: IsOurs) {
    this.identity = identity;
    this.#isOurs = isOurs;
    this.exited = exited.then((info) => {
      this.#exit = info;
      return info;
    });
  }

  /**
   * Starts QEMU. Its output goes to `logFile`, never through this process.
   * @param allocator the path of a library that is preloaded, or `system` (allocator.ts)
   * @param memory an open file that QEMU gets as MEMORY_DESCRIPTOR (argv.ts)
   * @throws ShimError FAILED_PRECONDITION / QEMU_NOT_STARTED when the binary cannot be run
   */
  static async spawn(
    binary: string,
    args: readonly string[],
    directory: string,
    logFile: string,
    allocator = 'system',
    memory?: number,
  ): Promise<QemuProcess> {
    const env = allocatorEnvironment(allocator);
    // A stream that is open has a descriptor, which QEMU inherits: nothing is piped through this process.
    const log = createWriteStream(logFile, { flags: 'a', mode: 0o600 });
    await once(log, 'open');
    log.on('error', () => undefined); // QEMU has its own descriptor by then, or is not started.
    using _closed = { [Symbol.dispose]: () => log.destroy() };
    const subprocess = run(binary, args, {
      cwd: directory,
      env,
      detached: true,
      cleanup: false,
      reject: false,
      stdio: ['ignore', log, log, ...(memory === undefined ? [] : [inherited(memory)])],
    });
    const { pid } = subprocess;
    if (pid === undefined) {
      const result: unknown = await subprocess;
      throw new ShimError('FAILED_PRECONDITION', `cannot start QEMU (${binary}): ${messageOf(result)}`, {
        reason: 'QEMU_NOT_STARTED',
        metadata: { binary },
      });
    }
    subprocess.unref();
    const exited = subprocess.then(({ exitCode, signal }) => ({ code: exitCode, signal }));
    try {
      const identity = await identify(pid);
      return new QemuProcess(identity ?? { pid, startTicks: 0 }, exited);
    } catch (error) {
      // Nobody would own it.
      subprocess.kill('SIGKILL');
      throw new ShimError('UNAVAILABLE', `QEMU was started and could not be looked at: ${messageOf(error)}`, {
        reason: 'QEMU_NOT_STARTED',
        metadata: { binary },
        cause: error,
      });
    }
  }

  /**
   * A process that a launcher has started, which ends as it does. When the launcher is killed, QEMU goes on.
   * @param exited how the launcher ended; never rejects
   */
  static async launched(pid: number, exited: Promise<ExitInfo>): Promise<QemuProcess> {
    const identity = (await identify(pid)) ?? { pid, startTicks: 0 };
    const gone = exited.then(async (exit) =>
      (await isAlive(identity).catch(() => true)) ? await watchUntilGone(identity) : exit,
    );
    // This daemon saw it start in this boot: pid and start time are enough. Its command line changes until it is QEMU.
    return new QemuProcess(identity, gone, () => true);
  }

  /**
   * Takes over a process that an earlier daemon started; undefined when it is gone, or when the pid is another's now:
   * by its start time, which a record of an earlier boot of the host, or a damaged one, may share with a stranger, and
   * by its command line.
   */
  static async adopt(identity: ProcessIdentity, isOurs: IsOurs): Promise<QemuProcess | undefined> {
    if (!(await isStill(identity, isOurs))) return undefined;
    return new QemuProcess(identity, watchUntilGone(identity), isOurs);
  }

  get pid(): number {
    return this.identity.pid;
  }

  /** How it ended, once seen. */
  get exit(): ExitInfo | undefined {
    return this.#exit;
  }

  /**
   * Sends a signal; without effect when the process is gone or its pid belongs to another process now.
   * @throws the system error when an adopted process cannot be looked at (no descriptor left): nothing was sent
   */
  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.#exit !== undefined) return;
    try {
      await signalProcess(this.identity, signal, this.#isOurs);
    } catch (error) {
      if (errnoOf(error) !== 'ESRCH') throw error;
    }
  }
}

/** For execa, which takes a stream that has a descriptor and gives the child that. Nobody reads from it. */
function inherited(descriptor: number): ReadStream {
  return createReadStream('', { fd: descriptor, autoClose: false });
}

/** Reads pid and start time; undefined when there is no such process, or only its zombie. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  let stat: ProcStat;
  try {
    stat = await readProcStat(pid);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined;
    throw error;
  }
  const { state, startTicks } = stat;
  return state === 'Z' || state === 'X' ? undefined : { pid, startTicks };
}

/** The command line of a process (proc_pid_cmdline(5)); none of one that has ended. @throws the system error */
export async function argumentsOf(pid: number): Promise<readonly string[]> {
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
}

/**
 * Sends a signal to a process and to no other: what is looked at is held by a descriptor before it is looked at, and
 * the signal goes through that descriptor. Without effect when it is another process now.
 * @param isOurs undefined for a child whose exit was not seen yet: its pid is nobody else's
 * @throws the system error; ESRCH: it has ended
 */
async function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals, isOurs?: IsOurs): Promise<void> {
  using handle = openHandle(identity.pid);
  if (isOurs !== undefined && !(await isStill(identity, isOurs))) return;
  if (handle === undefined) process.kill(identity.pid, signal);
  else handle.signal(constants.signals[signal]);
}

/** Undefined on hosts without pidfd, and where there is no descriptor left: then the look alone has to do. */
function openHandle(pid: number): ProcessHandle | undefined {
  try {
    return ProcessHandle.open(pid);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') throw error;
    return undefined;
  }
}

async function isStill(identity: ProcessIdentity, isOurs: IsOurs): Promise<boolean> {
  return (await isAlive(identity)) && isOurs(await argumentsOf(identity.pid).catch(noneWhenGone));
}

/** It ended since it was looked at. */
function noneWhenGone(error: unknown): readonly string[] {
  if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return [];
  throw error;
}

async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  const now = await identify(identity.pid);
  return now?.startTicks === identity.startTicks;
}

// The kernel tells only a parent of an exit. For a process that an earlier daemon started, looking is all there is;
// the end of its QMP connection is noticed at once all the same.
async function watchUntilGone(identity: ProcessIdentity): Promise<ExitInfo> {
  // One that cannot be looked at now (no descriptor left) is not taken for dead.
  while (await isAlive(identity).catch(() => true)) {
    const { promise, resolve } = Promise.withResolvers<void>();
    setTimeout(resolve, WATCH_INTERVAL_MS).unref();
    await promise;
  }
  return { code: undefined, signal: undefined };
}

/** Describes an exit for people. */
export function describeExit(exit: ExitInfo): string {
  if (exit.signal !== undefined) return `QEMU was ended by ${exit.signal}`;
  if (exit.code !== undefined) return `QEMU exited with code ${exit.code}`;
  return 'QEMU ended; how is not known, for an earlier daemon had started it';
}
