import { Mutex } from 'async-mutex';
import { waitFor, type WaitLimits } from './deadline.ts';
import { ShimError } from './errors.ts';

/**
 * A FIFO mutex with a bounded queue (locking rules 1 and 5). `using _held = await lock.acquire()` frees it at the end
 * of the block.
 */
export class BoundedMutex {
  readonly #mutex = new Mutex();
  readonly #name: string;
  readonly #callersMax: number;
  #callersWaiting = 0;

  constructor(name: string, callersMax: number) {
    this.#name = name;
    this.#callersMax = callersMax;
  }

  get locked(): boolean {
    return this.#mutex.isLocked();
  }

  /** For the daemon's own work, which must never be refused: waits its turn however long the queue is. */
  async acquire(): Promise<Disposable> {
    const release = await this.#mutex.acquire();
    return { [Symbol.dispose]: release };
  }

  /**
   * For a caller's request: waits its turn, unless too many callers wait already.
   * @param limits of the wait: a turn that comes after its caller has gone is passed on
   * @throws ShimError RESOURCE_EXHAUSTED / QUEUE_FULL; when the wait ends first, as waitFor
   */
  async acquireForCaller(limits: WaitLimits = {}): Promise<Disposable> {
    if (this.#callersWaiting >= this.#callersMax) {
      throw new ShimError(
        'RESOURCE_EXHAUSTED',
        `too many callers wait for ${this.#name} (at most ${this.#callersMax})`,
        {
          reason: 'QUEUE_FULL',
          metadata: { queue: this.#name, max: String(this.#callersMax) },
        },
      );
    }
    this.#callersWaiting += 1;
    // Who has left still has a place in the queue.
    const turn = this.acquire().finally(() => {
      this.#callersWaiting -= 1;
    });
    try {
      return await waitFor(turn, limits);
    } catch (error) {
      void turn.then((held) => held[Symbol.dispose]());
      throw error;
    }
  }
}
