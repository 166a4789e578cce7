import { Mutex } from 'async-mutex';
import { ShimError } from './errors.ts';

/**
 * A FIFO mutex with a bounded queue (locking rules 1 and 5). `using held = await lock.acquire()` frees it at the end
 * of the block. A full queue answers RESOURCE_EXHAUSTED at once and leaves the waiters as they are.
 */
export class BoundedMutex {
  readonly #mutex = new Mutex();
  readonly #name: string;
  readonly #waitersMax: number;
  #waiters = 0;

  constructor(name: string, waitersMax: number) {
    this.#name = name;
    this.#waitersMax = waitersMax;
  }

  get locked(): boolean {
    return this.#mutex.isLocked();
  }

  async acquire(): Promise<Disposable> {
    if (this.#waiters >= this.#waitersMax) {
      throw new ShimError(
        'RESOURCE_EXHAUSTED',
        `too many callers wait for ${this.#name} (at most ${this.#waitersMax})`,
        {
          reason: 'QUEUE_FULL',
          metadata: { queue: this.#name, max: String(this.#waitersMax) },
        },
      );
    }
    this.#waiters += 1;
    try {
      const release = await this.#mutex.acquire();
      return { [Symbol.dispose]: release };
    } finally {
      this.#waiters -= 1;
    }
  }
}
