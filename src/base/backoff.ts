import { sleep, type Deadline } from './deadline.ts';

/** Pauses between tries of one thing: each is twice the one before, up to a maximum. Milliseconds. */
export class Backoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  #nextMs: number;

  constructor(firstMs: number, maxMs: number) {
    this.#firstMs = firstMs;
    this.#maxMs = maxMs;
    this.#nextMs = firstMs;
  }

  /** The pause that is due now, for who waits in another way than `pause`. */
  next(): number {
    const pauseMs = this.#nextMs;
    this.#nextMs = Math.min(pauseMs * 2, this.#maxMs);
    return pauseMs;
  }

  /** It has gone well: the next pause is the first again. */
  reset(): void {
    this.#nextMs = this.#firstMs;
  }

  /** Sleeps for the pause that is due now, but not beyond a deadline. @throws the signal's reason */
  async pause(signal?: AbortSignal, deadline?: Deadline): Promise<void> {
    await sleep(Math.min(this.next(), deadline?.remainingMs ?? Number.POSITIVE_INFINITY), signal);
  }
}
