import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { execa } from 'execa';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { readProcStat, type ProcStat } from '../base/proc-stat.ts';
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

const WATCH_INTERVAL_MS = 200;

/** One QEMU process, in a session of its own: it outlives the daemon, and a daemon that comes back adopts it. */
export class QemuProcess {
  readonly identity: ProcessIdentity;
  /** Settles when the process has been seen to be gone; never rejects. */
  readonly exited: Promise<ExitInfo>;
  /** Started by this daemon: until its exit was seen, nobody else can have its pid. */
  readonly #isChild: boolean;
  #exit: ExitInfo | undefined;

  private constructor(identity: ProcessIdentity, exited: Promise<ExitInfo>, isChild: boolean) {
    this.identity = identity;
    this.#isChild = isChild;
    this.exited = exited.then((info) => {
      this.#exit = info;
      return info;
    });
  }

  /**
   * Starts QEMU. Its output goes to `logFile`, never through this process.
   * @param allocator the path of a library that is preloaded, or `system` (allocator.ts)
   * @throws ShimError FAILED_PRECONDITION / QEMU_NOT_STARTED when the binary cannot be run
   */
  static async spawn(
    binary: string,
    args: readonly string[],
    directory: string,
    logFile: string,
    allocator = 'system',
  ): Promise<QemuProcess> {
    const env = allocatorEnvironment(allocator);
    // A stream that is open has a descriptor, which QEMU inherits: nothing is piped through this process.
    const log = createWriteStream(logFile, { flags: 'a', mode: 0o600 });
    await once(log, 'open');
    log.on('error', () => undefined); // QEMU has its own descriptor by then, or is not started.
    using _closed = { [Symbol.dispose]: () => log.destroy() };
    const subprocess = execa(binary, args, {
      cwd: directory,
      env,
      detached: true,
      cleanup: false,
      reject: false,
      stdin: 'ignore',
      stdout: log,
      stderr: log,
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
      return new QemuProcess(identity ?? { pid, startTicks: 0 }, exited, true);
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
    return new QemuProcess(identity, gone, false);
  }

  /**
   * Takes over a process that an earlier daemon started; undefined when it is gone, or when the pid is another's now.
   */
  static async adopt(identity: ProcessIdentity): Promise<QemuProcess | undefined> {
    if (!(await isAlive(identity))) return undefined;
    return new QemuProcess(identity, watchUntilGone(identity), false);
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
    const alive = await isAlive(this.identity).catch((error: unknown) => {
      if (!this.#isChild) throw error;
      return true;
    });
    if (!alive) return;
    try {
      process.kill(this.pid, signal);
    } catch (error) {
      if (errnoOf(error) !== 'ESRCH') throw error;
    }
  }
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
