import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Backoff } from '../base/backoff.ts';
import { Coalesced } from '../base/coalesce.ts';
import { sleep } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

const RETRY_MIN_MS = 50;
const RETRY_MAX_MS = 2000;

const eventSchema = z.strictObject({
  namespace: z.string(),
  topic: z.string(),
  typeUrl: z.string(),
  /** The message, in base64. */
  value: z.string(),
  timeMs: z.number(),
});

/** An event on its way to containerd. */
export type ForwardedEvent = z.infer<typeof eventSchema>;

interface ForwarderOptions {
  readonly path: string;
  readonly waitingMax: number;
  readonly log: Logger;
  /** @returns false when containerd has refused this event for good */
  readonly send: (event: ForwardedEvent, signal: AbortSignal) => Promise<boolean>;
}

/**
 * Events for containerd, in order, each until containerd has taken it: it may be away for a while. They wait on disk,
 * so that a daemon that ends meanwhile leaves them to the next one. After a crash the last ones may be sent twice,
 * never lost.
 */
export class EventForwarder implements AsyncDisposable {
  readonly #options: ForwarderOptions;
  readonly #waiting: ForwardedEvent[];
  readonly #writes: Coalesced<void>;
  readonly #leaving = new AbortController();
  #running: Promise<void> | undefined;

  private constructor(options: ForwarderOptions, waiting: ForwardedEvent[]) {
    this.#options = options;
    this.#waiting = waiting;
    this.#writes = new Coalesced(() => writeAtomically(options.path, JSON.stringify(this.#waiting)));
  }

  /** Goes on with what an earlier daemon has left. */
  static async open(options: ForwarderOptions): Promise<EventForwarder> {
    const forwarder = new EventForwarder(options, await readWaiting(options));
    forwarder.#run();
    return forwarder;
  }

  /** Resolves when the event is on disk; it is sent in the background. */
  async publish(event: ForwardedEvent): Promise<void> {
    const { waitingMax, log } = this.#options;
    this.#waiting.push(event);
    if (this.#waiting.length > waitingMax) {
      const [dropped] = this.#waiting.splice(0, 1);
      log.warn({ topic: dropped?.topic, waitingMax }, 'event for containerd dropped: too many wait');
    }
    this.#run();
    await this.#writes.run().catch((error: unknown) => {
      log.warn({ problem: messageOf(error) }, 'events for containerd not written to disk');
    });
  }

  #run(): void {
    if (this.#running !== undefined || this.#waiting.length === 0 || this.#leaving.signal.aborted) return;
    this.#running = this.#sendAll().finally(() => {
      this.#running = undefined;
      this.#run();
    });
  }

  async #sendAll(): Promise<void> {
    const { signal } = this.#leaving;
    const { send, log } = this.#options;
    const backoff = new Backoff(RETRY_MIN_MS, RETRY_MAX_MS);
    for (let event = this.#waiting[0]; event !== undefined && !signal.aborted; event = this.#waiting[0]) {
      try {
        if (!(await send(event, signal))) log.warn({ topic: event.topic }, 'event refused by containerd');
        if (this.#waiting[0] === event) this.#waiting.shift();
        backoff.reset();
      } catch (error) {
        const pauseMs = backoff.next();
        if (pauseMs === RETRY_MIN_MS)
          log.info({ problem: messageOf(error) }, 'containerd takes no events, trying again');
        await sleep(pauseMs, signal).catch(() => undefined);
      }
    }
    await this.#writes.run().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving.abort();
    await this.#running;
    await this.#writes.run().catch(() => undefined);
  }
}

async function readWaiting({ path, log }: ForwarderOptions): Promise<ForwardedEvent[]> {
  try {
    return z.array(eventSchema).parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') log.error({ path, problem: messageOf(error) }, 'waiting events cannot be read');
    return [];
  }
}
