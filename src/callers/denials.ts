import { monotonicMs } from '../base/deadline.ts';
import { TokenBucket } from '../base/budget.ts';

/** Denials of one caller that are each taken down: so many at once, and then so many a second. */
const AT_ONCE = 50;
const PER_SECOND = 1;
/** Callers that are told apart; those beyond are counted together. */
const CALLERS_MAX = 1024;
const OTHERS = 'others';

/** Denials without lines. */
export interface LeftOut {
  readonly caller: string;
  readonly leftOut: number;
}

interface Denied {
  readonly bucket: TokenBucket;
  leftOut: number;
}

/**
 * How many denials of one caller get lines of their own. Whoever may do nothing could else ask without an end, until
 * what others did has been written over. Those beyond are counted, and the count is told.
 */
export class Denials {
  readonly #nowMs: () => number;
  readonly #callers = new Map<string, Denied>();

  constructor(nowMs: () => number = monotonicMs) {
    this.#nowMs = nowMs;
  }

  /**
   * Counts one.
   * @returns how many were left out before it, and of whom; undefined: this one is left out too
   */
  count(caller: string): LeftOut | undefined {
    const name = this.#nameOf(caller);
    const denied = this.#of(name);
    if (denied.bucket.tokens < 1) {
      denied.leftOut += 1;
      return undefined;
    }
    denied.bucket.take(1);
    const { leftOut } = denied;
    denied.leftOut = 0;
    return { caller: name, leftOut };
  }

  /** What was left out and not told yet, of each caller; it counts as told. */
  settle(): readonly LeftOut[] {
    const found = [...this.#callers].flatMap(([caller, { leftOut }]) => (leftOut > 0 ? [{ caller, leftOut }] : []));
    for (const [caller, denied] of this.#callers) {
      denied.leftOut = 0;
      // Whoever comes anew has as much.
      if (denied.bucket.tokens >= AT_ONCE) this.#callers.delete(caller);
    }
    return found;
  }

  #nameOf(caller: string): string {
    return this.#callers.has(caller) || this.#callers.size < CALLERS_MAX ? caller : OTHERS;
  }

  #of(name: string): Denied {
    const known = this.#callers.get(name);
    if (known !== undefined) return known;
    const made = { bucket: new TokenBucket(PER_SECOND, AT_ONCE, this.#nowMs), leftOut: 0 };
    this.#callers.set(name, made);
    return made;
  }
}
