import type { TokenBucket } from './budget.ts';

/**
 * Work that somebody else decides how often to cause, such as a guest: it is done at once while the rate allows, and
 * otherwise once, when it does again, for all that was asked meanwhile. The last one asked for is never left out.
 */
export class Paced {
  readonly #rate: TokenBucket;
  readonly #end: AbortSignal;
  readonly #work: () => void;
  #timer: NodeJS.Timeout | undefined;

  /** @param end nothing is done any more once it is aborted */
  constructor(rate: TokenBucket, end: AbortSignal, work: () => void) {
    this.#rate = rate;
    this.#end = end;
    this.#work = work;
  }

  ask(): void {
    if (this.#end.aborted || this.#timer !== undefined) return;
    const waitMs = this.#rate.msUntil(1);
    if (waitMs === 0) {
      this.#rate.take(1);
      this.#work();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.ask();
    }, Math.ceil(waitMs));
    this.#timer.unref();
  }
}
