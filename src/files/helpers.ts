import { monotonicMs, waitFor } from '../base/deadline.ts';
import { ShimError, errnoOf } from '../base/errors.ts';
import { Helper, HelperEnded } from './helper.ts';
import { LINKS_MAX, LeadsElsewhere } from './leads.ts';
import { mountPointOf } from './mounts.ts';

/**
 * Looks at files that callers name, in processes that can be killed:
 *
 *     ask ─▶ a turn on its file system ─▶ helper.ts ─ one request at a time ─▶ serve.ts: the job
 *                                            │ no sign of life for the time limit
 *                                            └─▶ SIGKILL; SOURCE_NOT_ANSWERING; counted until it is gone
 *
 * A path that leads to another file system takes its turn there (leads.ts).
 *
 * A file system that hangs takes at most PER_FILE_SYSTEM helpers: those who ask for it wait, and nobody else. The
 * daemon opens none of these files: what QEMU is to have, the helper sends it.
 */

/** Looks at one file system that may be under way at once, those that hang included. */
const PER_FILE_SYSTEM = 8;
/** With so many that hang, the next is refused at once. */
const HUNG_MAX = 4;
/** Over all file systems. */
const HELPERS_MAX = 64;
/** Helpers without work that stay, so that the next look need not wait for a process to start. */
const IDLE_MAX = 2;
/** Before another helper is started for it, a look waits so long for one that works. */
const PATIENCE_MS = 20;
/** Until a new helper takes requests. It has touched no file of a caller's by then. */
const START_TIMEOUT_MS = 60_000;
const CHECK_MS = 500;

/** Which file is looked at, and for how long its file system may give no sign of life. */
export interface LookAt {
  /** Absolute, as it is written. */
  readonly path: string;
  readonly timeoutMs: number;
}

/**
 * Puts bytes on a socket, with a descriptor beside them.
 * @throws Error with `sent` true when it is not known how many of them went
 */
export type DescriptorSender = (socket: number, bytes: Uint8Array) => Promise<void>;

/** What a job has kept open, in its helper, until this is disposed of. */
export interface Kept extends Disposable {
  readonly value: unknown;
  readonly send: DescriptorSender;
}

/** What is known of one file system. */
interface FileSystem {
  readonly name: string;
  /** Helpers that work on it, those that hang included. */
  running: number;
  hung: number;
  lastSignMs: number;
  readonly queue: Waiting[];
}

interface Waiting extends PromiseWithResolvers<Helper> {
  patient: boolean;
}

interface Turn {
  readonly helper: Helper;
  readonly onSign: () => void;
  readonly over: () => void;
}

/** All helpers of a daemon. */
export class FileHelpers implements Disposable {
  readonly #systems = new Map<string, FileSystem>();
  readonly #idle: Helper[] = [];
  #all = 0;

  /**
   * Has a helper run a job.
   * @throws what the job throws; ShimError UNAVAILABLE / SOURCE_NOT_ANSWERING, RESOURCE_EXHAUSTED / OUT_OF_DESCRIPTORS
   */
  async ask(job: string, args: readonly unknown[], at: LookAt): Promise<unknown> {
    const { value, over } = await this.#run(job, args, at);
    over();
    return value;
  }

  /**
   * Runs a job where its path leads. A symbolic link that leads to a file system that hangs takes a helper from that
   * one, and from no other.
   */
  async #run(
    job: string,
    args: readonly unknown[],
    at: LookAt,
  ): Promise<{ readonly helper: Helper; readonly value: unknown; readonly over: () => void }> {
    let { path } = at;
    for (let hops = 0; ; hops += 1) {
      const { helper, onSign, over } = await this.#turn({ ...at, path });
      try {
        const request = { kind: 'run', job, args, path: hops < LINKS_MAX ? path : '/' } as const;
        return { helper, value: await helper.ask(request, at.timeoutMs, onSign), over };
      } catch (error) {
        over();
        if (!(error instanceof LeadsElsewhere)) {
          throw error instanceof HelperEnded ? notAnswering(at, error.message) : error;
        }
        ({ path } = error);
      }
    }
  }

  /**
   * The same for a job that keeps something open. Its helper is taken until that is disposed of.
   * @throws as ask
   */
  async keep(job: string, args: readonly unknown[], at: LookAt): Promise<Kept> {
    const { helper, value, over } = await this.#run(job, args, at);
    let sending: Promise<unknown> = Promise.resolve();
    const send: DescriptorSender = async (socket, bytes) => {
      helper.layReady(bytes, socket);
      const sent = helper.ask({ kind: 'give' }, at.timeoutMs);
      sending = sent.catch(() => undefined);
      await sent.catch((error: unknown) => {
        throw error instanceof HelperEnded ? Object.assign(error, { sent: true }) : error;
      });
    };
    // To close may hang as well: nobody waits for it. QEMU may have answered before the helper has.
    const drop = (): void =>
      void sending
        .then(() => helper.ask({ kind: 'drop' }, at.timeoutMs))
        .catch(() => helper.end())
        .then(over);
    return { value, send, [Symbol.dispose]: drop };
  }

  /** Starts a helper, so that the first look need not wait for it. */
  warmUp(): void {
    if (this.#all > 0) return;
    const helper = this.#start();
    if (helper !== undefined) this.#idle.push(helper);
  }

  /** Ends those that have nothing to do. */
  [Symbol.dispose](): void {
    for (const helper of this.#idle.splice(0)) helper.end();
  }

  async #turn(at: LookAt): Promise<Turn> {
    const name = mountPointOf(at.path);
    const system = this.#systems.get(name) ?? { name, running: 0, hung: 0, lastSignMs: 0, queue: [] };
    if (system.hung >= HUNG_MAX) throw notAnswering(at, `${system.hung} looks at ${name} have not come back`);
    this.#systems.set(name, system);
    const helper = await this.#wait(system, at);
    const onSign = (): void => {
      system.lastSignMs = monotonicMs();
    };
    return { helper, onSign, over: () => this.#over(system, helper) };
  }

  /** A helper that is up, as soon as it is this look's turn. */
  async #wait(system: FileSystem, at: LookAt): Promise<Helper> {
    const waiting: Waiting = { ...Promise.withResolvers<Helper>(), patient: true };
    system.queue.push(waiting);
    const sinceMs = monotonicMs();
    const impatient = setTimeout(() => {
      waiting.patient = false;
      this.#dispatch();
    }, PATIENCE_MS);
    const check = setInterval(
      () => {
        const silentMs = monotonicMs() - Math.max(sinceMs, system.lastSignMs);
        if (silentMs < at.timeoutMs) return;
        if (system.running >= PER_FILE_SYSTEM) {
          waiting.reject(notAnswering(at, `${system.running} looks at ${system.name} wait for an answer before it`));
        } else if (this.#all >= HELPERS_MAX) {
          waiting.reject(notAnswering(at, `all ${HELPERS_MAX} helpers wait for other file systems`));
        }
      },
      Math.min(at.timeoutMs, CHECK_MS),
    );
    this.#dispatch();
    try {
      const helper = await waiting.promise;
      try {
        await waitFor(helper.ready, { milliseconds: START_TIMEOUT_MS });
        return helper;
      } catch (error) {
        helper.end();
        this.#over(system, helper);
        throw error instanceof HelperEnded ? notAnswering(at, error.message) : error;
      }
    } finally {
      clearTimeout(impatient);
      clearInterval(check);
      const place = system.queue.indexOf(waiting);
      if (place !== -1) system.queue.splice(place, 1);
    }
  }

  /** Gives helpers to those that wait: one without work, or a new one to whom it has become too long. */
  #dispatch(): void {
    for (const system of this.#systems.values()) {
      while (system.running < PER_FILE_SYSTEM) {
        const [first] = system.queue;
        if (first === undefined) break;
        try {
          const helper = this.#free() ?? (first.patient && this.#all > 0 ? undefined : this.#start());
          if (helper === undefined) break;
          system.queue.shift();
          system.running += 1;
          first.resolve(helper);
        } catch (error) {
          system.queue.shift();
          first.reject(notStarted(error));
        }
      }
    }
  }

  /** A helper without work that still lives. */
  #free(): Helper | undefined {
    for (let helper = this.#idle.pop(); helper !== undefined; helper = this.#idle.pop()) {
      if (helper.usable) return helper;
    }
    return undefined;
  }

  /** Undefined when there are as many as there may be. @throws the system error */
  #start(): Helper | undefined {
    if (this.#all >= HELPERS_MAX) return undefined;
    const helper = new Helper();
    this.#all += 1;
    void helper.exited.then(() => {
      this.#all -= 1;
      this.#dispatch();
    });
    return helper;
  }

  #over(system: FileSystem, helper: Helper): void {
    const left = (): void => {
      system.running -= 1;
      if (system.running === 0 && system.queue.length === 0) this.#systems.delete(system.name);
      this.#dispatch();
    };
    if (!helper.usable) {
      system.hung += 1;
      void helper.exited.then(() => {
        system.hung -= 1;
        left();
      });
      return;
    }
    this.#idle.push(helper);
    left();
    for (const idle of this.#idle.splice(IDLE_MAX)) idle.end();
  }
}

/** The daemon's. */
export const fileHelpers = new FileHelpers();

function notAnswering({ path }: LookAt, problem: string): ShimError {
  return new ShimError('UNAVAILABLE', `the file system of ${path} does not answer: ${problem}`, {
    reason: 'SOURCE_NOT_ANSWERING',
    metadata: { path },
  });
}

function notStarted(error: unknown): unknown {
  if (!['EMFILE', 'ENFILE'].includes(errnoOf(error) ?? '')) return error;
  return new ShimError('RESOURCE_EXHAUSTED', 'a file cannot be looked at: no file descriptors are left', {
    reason: 'OUT_OF_DESCRIPTORS',
    cause: error,
  });
}
