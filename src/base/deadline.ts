import { performance } from 'node:perf_hooks';
import { setTimeout as sleepFor } from 'node:timers/promises';
import { ShimError } from './errors.ts';

/**
 * A moment on the monotonic clock, so that a jump of the wall clock changes no wait.
 * All durations are milliseconds.
 */
export class Deadline {
  readonly totalMs: number;
  readonly #at: number;

  private constructor(totalMs: number) {
    this.totalMs = totalMs;
    this.#at = performance.now() + totalMs;
  }

  static after(milliseconds: number): Deadline {
    return new Deadline(milliseconds);
  }

  /** Milliseconds left, never negative. */
  get remainingMs(): number {
    return Math.max(0, this.#at - performance.now());
  }

  get expired(): boolean {
    return this.remainingMs === 0;
  }
}

/** Milliseconds on the monotonic clock; only differences mean anything. */
export function monotonicMs(): number {
  return performance.now();
}

/** The longest time that a timer can take (24.8 days); Node takes more for 1 ms. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** Sleeps; rejects with the signal's reason when aborted. */
export async function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  if (signal === undefined) {
    await sleepFor(Math.min(milliseconds, TIMER_MS_MAX));
    return;
  }
  signal.throwIfAborted();
  try {
    await sleepFor(Math.min(milliseconds, TIMER_MS_MAX), undefined, { signal });
  } catch (error) {
    if (signal.aborted) throw asError(signal.reason);
    throw error;
  }
}

/** When a wait ends though its work has not. */
export interface WaitLimits {
  readonly milliseconds?: number;
  readonly signal?: AbortSignal;
  readonly onTimeout?: () => Error;
}

/**
 * Settles as `work` does, or rejects with `onTimeout()` after `milliseconds`, or with the signal's reason.
 * The work itself goes on: a wait that ends never abandons what was begun (locking rule 6).
 */
export async function waitFor<T>(work: Promise<T>, limits: WaitLimits): Promise<T> {
  const { milliseconds, signal, onTimeout } = limits;
  // The work may fail when nobody waits for it any more, or before anybody does: that must not end the process.
  work.catch(() => undefined);
  signal?.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const timer =
    milliseconds === undefined
      ? undefined
      : setTimeout(
          () => {
            reject(onTimeout?.() ?? new ShimError('DEADLINE_EXCEEDED', 'the wait timed out', { reason: 'TIMEOUT' }));
          },
          Math.min(milliseconds, TIMER_MS_MAX),
        );
  const onAbort = (): void => {
    reject(asError(signal?.reason));
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

function asError(reason: unknown): Error {
  return reason instanceof Error
    ? reason
    : new ShimError('CANCELLED', 'the caller gave up', { reason: 'CANCELLED', cause: reason });
}
