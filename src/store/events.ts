import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { EventType, NewEvent, ShimEvent } from './event.ts';
import { EventFile, type StoredEvent } from './event-file.ts';

/** Events of a volume that tell of no change of its state. */
const NOT_A_STATE: ReadonlySet<EventType> = new Set(['volume.health', 'volume.job', 'volume.resized']);

export interface EventLogLimits {
  readonly retainedMax: number;
  readonly watchersMax: number;
  readonly watcherQueueMax: number;
}

/**
 * All events of the daemon in order, with the newest kept for watchers that come late. Emitting never waits: a watcher
 * that does not keep up loses its stream, with an error that says so, and nobody else notices.
 */
export class EventLog {
  readonly #limits: EventLogLimits;
  readonly #file: EventFile | undefined;
  readonly #retained: ShimEvent[] = [];
  readonly #watchers = new Set<Watcher>();
  /** Numbered, not yet on disk, not yet delivered. */
  #waiting: ShimEvent[] = [];
  #writing: Promise<void> | undefined;
  /** Of the newest event that was emitted; watchers have seen at most this. */
  #emitted = 0;
  #delivered = 0;

  /** An event log in memory only; `open` makes one that outlives the daemon. */
  constructor(limits: EventLogLimits, kept?: { readonly file: EventFile; readonly events: readonly StoredEvent[] }) {
    this.#limits = limits;
    this.#file = kept?.file;
    for (const event of kept?.events ?? []) {
      // The type was one of ours when it was written; a newer daemon's types are passed on as they are.
      const type = event.type as EventType;
      this.#retained.push({ ...event, type, volumeId: event.volumeId, cause: event.cause, subject: undefined });
    }
    this.#emitted = this.#retained.at(-1)?.sequence ?? 0;
    this.#delivered = this.#emitted;
  }

  /** An event log that goes on where the last daemon's ended. */
  static async open(path: string, limits: EventLogLimits, log: Logger): Promise<EventLog> {
    return new EventLog(limits, await EventFile.open(path, limits.retainedMax, log));
  }

  /** Sequence number of the newest event that watchers may have seen. */
  get sequence(): number {
    return this.#delivered;
  }

  /**
   * The newest retained event about the state of a volume's generation (or, without a volume, about the sandbox
   * itself).
   */
  latest(sandboxId: string, volumeId: string | undefined, generation: number): ShimEvent | undefined {
    return [...this.#retained, ...this.#waiting].findLast(
      (event) =>
        event.sandboxId === sandboxId &&
        event.volumeId === volumeId &&
        event.generation === generation &&
        !NOT_A_STATE.has(event.type),
    );
  }

  /**
   * Numbers an event and delivers it.
   * INVARIANT: with a file, an event is on disk before any watcher sees it. Else a daemon that is killed in between
   * would give its number to another event, and a watcher that goes on from that number would miss one.
   */
  emit(event: NewEvent): void {
    this.#emitted += 1;
    const full: ShimEvent = { ...event, sequence: this.#emitted, timeMs: Date.now() };
    if (this.#file === undefined) {
      this.#deliver(full);
      return;
    }
    this.#waiting.push(full);
    this.#writing ??= this.#drain(this.#file).finally(() => {
      this.#writing = undefined;
    });
  }

  /** Resolves once everything that was emitted has been delivered. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #drain(file: EventFile): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      await file.append(batch, [...this.#retained, ...batch].slice(-this.#limits.retainedMax));
      this.#waiting = this.#waiting.slice(batch.length);
      for (const event of batch) this.#deliver(event);
    }
  }

  #deliver(event: ShimEvent): void {
    this.#delivered = event.sequence;
    this.#retained.push(event);
    if (this.#retained.length > this.#limits.retainedMax) this.#retained.shift();
    for (const watcher of this.#watchers) watcher.offer(event);
  }

  /**
   * Opens a stream of events, beginning after `afterSequence` (undefined: with the next one to be emitted; those that
   * are still on their way to the disk are older than the state that the watcher can see now; `retained`: with the
   * oldest that there is).
   * @throws ShimError OUT_OF_RANGE / EVENTS_LOST when events after that number are no longer retained
   * @throws ShimError RESOURCE_EXHAUSTED / TOO_MANY_WATCHERS
   */
  watch(after?: number | 'retained'): Watcher {
    if (this.#watchers.size >= this.#limits.watchersMax) {
      throw new ShimError('RESOURCE_EXHAUSTED', `at most ${this.#limits.watchersMax} watchers may be open`, {
        reason: 'TOO_MANY_WATCHERS',
        metadata: { max: String(this.#limits.watchersMax) },
      });
    }
    const oldest = this.#retained[0]?.sequence ?? this.#delivered + 1;
    const afterSequence = after === 'retained' ? oldest - 1 : after;
    if (afterSequence !== undefined) {
      if (afterSequence + 1 < oldest || afterSequence > this.#delivered) {
        throw new ShimError(
          'OUT_OF_RANGE',
          `events after ${afterSequence} cannot be given: ${oldest} to ${this.#delivered} are retained; list the present state and watch anew`,
          { reason: 'EVENTS_LOST', metadata: { oldest: String(oldest), newest: String(this.#delivered) } },
        );
      }
    }
    const from = afterSequence ?? this.#emitted;
    const watcher = new Watcher({
      queueMax: this.#limits.watcherQueueMax,
      afterSequence: from,
      // Bounded by what is retained: whoever asks for more of it than a queue holds has not been slow.
      replay: this.#retained.filter((event) => event.sequence > from),
      onDispose: () => this.#watchers.delete(watcher),
    });
    this.#watchers.add(watcher);
    return watcher;
  }

  /** Ends every stream, for shutdown. */
  close(cause: Error): void {
    for (const watcher of this.#watchers) watcher.fail(cause);
  }
}

interface WatcherOptions {
  /** Events that may wait besides those of `replay`. */
  readonly queueMax: number;
  /** Events up to this number are not wanted. */
  readonly afterSequence: number;
  /** Past events, to be taken before any other. */
  readonly replay: readonly ShimEvent[];
  readonly onDispose: () => void;
}

/** One stream of events with a bounded queue. Whoever opened it disposes of it. */
export class Watcher implements Disposable {
  readonly #options: WatcherOptions;
  #queue: ShimEvent[];
  /** How many events may be in the queue. */
  #bound: number;
  #failure: Error | undefined;
  #wake: PromiseWithResolvers<void> | undefined;

  constructor(options: WatcherOptions) {
    this.#options = options;
    this.#queue = [...options.replay];
    this.#bound = options.queueMax + options.replay.length;
  }

  offer(event: ShimEvent): void {
    const { afterSequence, queueMax } = this.#options;
    if (this.#failure !== undefined || event.sequence <= afterSequence) return;
    if (this.#queue.length >= this.#bound) {
      this.fail(
        new ShimError('RESOURCE_EXHAUSTED', `the watcher fell more than ${queueMax} events behind`, {
          reason: 'WATCHER_TOO_SLOW',
          metadata: { lastSequence: String(event.sequence - 1) },
        }),
      );
      return;
    }
    this.#queue.push(event);
    this.#wake?.resolve();
  }

  fail(cause: Error): void {
    this.#failure ??= cause;
    this.#wake?.resolve();
  }

  /** The next events, at least one; rejects once the stream has failed and its queue is empty. */
  async take(signal: AbortSignal): Promise<readonly ShimEvent[]> {
    for (;;) {
      signal.throwIfAborted();
      if (this.#queue.length > 0) {
        const events = this.#queue;
        this.#queue = [];
        this.#bound = this.#options.queueMax;
        return events;
      }
      if (this.#failure !== undefined) throw this.#failure;
      const wake = Promise.withResolvers<void>();
      this.#wake = wake;
      const onAbort = (): void => wake.resolve();
      signal.addEventListener('abort', onAbort, { once: true });
      await wake.promise;
      signal.removeEventListener('abort', onAbort);
    }
  }

  [Symbol.dispose](): void {
    this.#options.onDispose();
    this.fail(new ShimError('CANCELLED', 'the watcher was closed', { reason: 'CANCELLED' }));
  }
}
