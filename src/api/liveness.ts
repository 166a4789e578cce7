import { lstat } from 'node:fs/promises';
import { monotonicMs } from '../base/deadline.ts';

/** How often it is looked at. */
const LOOK_MS = 500;
/** A look that comes so much too late says that nobody was served for so long. */
const LATE_MS = 2000;
/** After that it has to go well for so long, before it counts as well. */
const CALM_MS = 10_000;
/** What a thread of libuv's answers in microseconds. */
const POOL_MS = 5000;

export interface LivenessOptions {
  /** Why the journal cannot be written, if it cannot. */
  readonly journalProblem: () => string | undefined;
  /** Asks one of libuv's threads for something that never waits. For tests. */
  readonly askPool?: () => Promise<unknown>;
  /** Milliseconds on a clock that only goes forward. For tests. */
  readonly now?: () => number;
}

/** What is wrong, if anything is. */
export interface Vitals {
  /** The daemon does not get on with its work: to start it again would help. */
  readonly stuck: string | undefined;
  /** It does, and cannot do what it is there for. */
  readonly unable: string | undefined;
}

/**
 * Whether the daemon gets on: its one thread, libuv's threads, and the journal. What it says of itself to
 * grpc.health.v1 and to systemd's watchdog rests on this, so it looks, and takes nothing for granted.
 */
export class Liveness {
  readonly #options: LivenessOptions;
  #lastMs: number;
  #blockedUntilMs = -Infinity;
  #blockedForMs = 0;
  #askedMs: number | undefined;

  constructor(options: LivenessOptions) {
    this.#options = options;
    this.#lastMs = this.#now();
  }

  /** Looks from now on; `told` hears what was seen. */
  watch(told: (vitals: Vitals) => void): Disposable {
    const timer = setInterval(() => told(this.look()), LOOK_MS);
    timer.unref();
    return { [Symbol.dispose]: () => clearInterval(timer) };
  }

  /** One look. To be called every LOOK_MS: a call that comes late says that the thread was not free. */
  look(): Vitals {
    const nowMs = this.#now();
    const lateMs = nowMs - this.#lastMs - LOOK_MS;
    this.#lastMs = nowMs;
    if (lateMs > LATE_MS) {
      this.#blockedUntilMs = nowMs + CALM_MS;
      this.#blockedForMs = lateMs;
    }
    if (this.#askedMs === undefined) this.#askPool(nowMs);
    return { stuck: this.#stuck(nowMs), unable: this.#options.journalProblem() };
  }

  #stuck(nowMs: number): string | undefined {
    if (nowMs < this.#blockedUntilMs) return `the daemon answered nobody for ${Math.round(this.#blockedForMs)} ms`;
    const askedMs = this.#askedMs ?? nowMs;
    if (nowMs - askedMs < POOL_MS) return undefined;
    return `no thread for files has answered for ${Math.round(nowMs - askedMs)} ms`;
  }

  #askPool(nowMs: number): void {
    this.#askedMs = nowMs;
    const ask = this.#options.askPool ?? (() => lstat('/proc/self'));
    const answered = (): void => {
      this.#askedMs = undefined;
    };
    ask().then(answered, answered);
  }

  #now(): number {
    return (this.#options.now ?? monotonicMs)();
  }
}
