import { Backoff } from '../base/backoff.ts';
import { monotonicMs, waitFor } from '../base/deadline.ts';
import { isShimError } from '../base/errors.ts';
import { BoundedMutex } from '../base/mutex.ts';
import type { Config } from '../config.ts';

/**
 * Devices that the guest is asked for at once. QEMU keeps a mark on each device that it was asked to unplug, and each
 * notification of the guest, be it for a device that comes or one that goes, makes the guest queue an eject for every
 * slot that is still marked. So N requests at once may cost it N * N ejects, and take no less time than N in turn.
 */
const AT_ONCE = 4;

/** What the requests of one VM need to know of it. */
interface UnplugHost {
  readonly config: Pick<Config, 'unplug_retry_ms' | 'unplug_retry_max_ms'>;
  readonly gone: AbortSignal;
}

/**
 * How one VM's guest is asked to let go of devices: a few at once, and again only when nothing moves.
 *
 * A repeat is for a guest that has lost the request, because it was booting, and not for one that is slow. So what
 * counts is the time since the guest was last seen to get on with any device of the VM, or was last asked for any.
 * Repeats take turns thus: after each, all others wait anew.
 */
export class Unplugs {
  readonly #host: UnplugHost;
  readonly #door = new BoundedMutex('the unplugging of devices', 1);
  /** Those under way that others wait for. */
  readonly #counted = new Set<Unplug>();
  #movedAtMs = monotonicMs();
  /** Resolved and renewed whenever one is over. */
  #over = Promise.withResolvers<void>();

  constructor(host: UnplugHost) {
    this.#host = host;
  }

  /** One device's way out; to be disposed of when it is over. */
  begin(): Unplug {
    const { unplug_retry_ms: firstMs, unplug_retry_max_ms: maxMs } = this.#host.config;
    return new Unplug(this, new Backoff(firstMs, maxMs));
  }

  /** The guest was seen to get on with a device that comes or goes, or it was asked for one. */
  moved(): void {
    this.#movedAtMs = monotonicMs();
  }

  /** Until nothing has moved for so long; 0 when that is so. Milliseconds. */
  untilQuietMs(milliseconds: number): number {
    return Math.max(0, this.#movedAtMs + milliseconds - monotonicMs());
  }

  /** Waits for a place among those under way. A guest that does not let go of those holds nobody up for long. */
  async enter(unplug: Unplug): Promise<void> {
    const { gone: signal, config } = this.#host;
    using _next = await this.#door.acquire();
    signal.throwIfAborted();
    while (this.#counted.size >= AT_ONCE) {
      const milliseconds = this.untilQuietMs(config.unplug_retry_ms);
      if (milliseconds === 0) {
        this.#counted.clear();
        break;
      }
      await waitFor(this.#over.promise, { milliseconds, signal }).catch((error: unknown) => {
        signal.throwIfAborted();
        if (!isShimError(error, 'DEADLINE_EXCEEDED')) throw error;
      });
    }
    this.#counted.add(unplug);
  }

  leave(unplug: Unplug): void {
    if (!this.#counted.delete(unplug)) return;
    this.#over.resolve();
    this.#over = Promise.withResolvers();
  }
}

/** One device on its way out: whether the guest was asked for it, and when it may be asked again. */
export class Unplug implements Disposable {
  readonly #all: Unplugs;
  readonly #backoff: Backoff;
  #entered = false;
  /** Undefined until the guest was asked. */
  #pauseMs: number | undefined;

  constructor(all: Unplugs, backoff: Backoff) {
    this.#all = all;
    this.#backoff = backoff;
  }

  /** Waits until it is this device's turn. @throws the reason of `host.gone` */
  async turn(): Promise<void> {
    if (this.#entered) return;
    this.#entered = true;
    await this.#all.enter(this);
  }

  /** The guest was never asked for it, as far as is known here. */
  get unasked(): boolean {
    return this.#pauseMs === undefined;
  }

  /** Until the guest may be asked again: nothing has moved in the VM for as long as the pause is. Milliseconds. */
  get untilDueMs(): number {
    return this.#pauseMs === undefined ? 0 : this.#all.untilQuietMs(this.#pauseMs);
  }

  /** The guest is about to be asked: should the reply be lost, it may have been. */
  asking(): void {
    this.#pauseMs = this.#backoff.next();
    this.#all.moved();
  }

  /** The device was seen to be gone. */
  gone(): void {
    this.#all.moved();
    this.#all.leave(this);
  }

  [Symbol.dispose](): void {
    this.#all.leave(this);
  }
}
