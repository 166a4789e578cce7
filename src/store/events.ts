import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { EventType, NewEvent, ShimEvent } from './event.ts';
import { EventFile, newEpoch, type KeptEvents } from './event-file.ts';

/** Events of a volume that tell of a change of its state; all others tell of something else. */
const VOLUME_STATES: ReadonlySet<EventType> = new Set([
  'volume.pending',
  'volume.attached',
  'volume.detaching',
  'volume.removed',
]);

type Unnumbered = NewEvent & { readonly timeMs: number };

export interface EventLogLimits {
  readonly retainedMax: number;
  readonly watchersMax: number;
  readonly watcherQueueMax: number;
}

const MICROSECONDS_PER_MS = 1000;

/** An event, as a watcher remembers it to go on behind it. */
export interface EventToken {
  /** Undefined: whatever its epoch is. */
  readonly epoch: string | undefined;
  readonly sequence: number;
}

/**
 * All events of the daemon in order, with the newest kept for watchers that come late. Emitting never waits: a watcher
 * that does not keep up loses its stream, with an error that says so, and nobody else notices.
 *
 * Numbers rise, and have no gaps within an epoch. An epoch lasts for as long as all of its events are on disk before
 * anybody sees them, over any number of daemons. Where they cannot be kept (no room), the daemon begins another epoch,
 * far above all numbers that were given: a daemon that comes after it and knows nothing of them gives none of these
 * numbers again, and none of that epoch.
 */
export class EventLog {
  readonly #limits: EventLogLimits;
  readonly #file: EventFile | undefined;
  /** Of the last daemon, before a gap: nobody goes on from them. */
  readonly #beforeGap: readonly ShimEvent[];
  readonly #retained: ShimEvent[];
  readonly #watchers = new Set<Watcher>();
  /** Not yet numbered for good, not yet on disk, not yet delivered. */
  #waiting: Unnumbered[] = [];
  #writing: Promise<void> | undefined;
  /** In which events are numbered now. */
  #epoch: string;
  /** The newest event that was delivered. */
  #newest: { readonly epoch: string; readonly sequence: number };
  /** Events that were delivered are not on disk. */
  #unkept = false;

  /** An event log in memory only; `open` makes one that outlives the daemon. */
  constructor(limits: EventLogLimits, kept?: KeptEvents) {
    this.#limits = limits;
    this.#file = kept?.file;
    const events = (kept?.events ?? []).map(
      // The type was one of ours when it was written; a newer daemon's types are passed on as they are.
      (event): ShimEvent => ({
        ...event,
        type: event.type as EventType,
        volumeId: event.volumeId,
        cause: event.cause,
        subject: undefined,
      }),
    );
    const incomplete = kept?.incomplete === true;
    this.#beforeGap = incomplete ? events : [];
    this.#retained = incomplete ? [] : events;
    this.#epoch = kept?.epoch ?? newEpoch();
    this.#newest = { epoch: this.#epoch, sequence: events.at(-1)?.sequence ?? 0 };
  }

  /** An event log that goes on where the last daemon's ended. */
  static async open(path: string, limits: EventLogLimits, log: Logger): Promise<EventLog> {
    return new EventLog(limits, await EventFile.open(path, limits.retainedMax, log));
  }

  /** Epoch and number of the newest event that watchers may have seen. */
  get newest(): { readonly epoch: string; readonly sequence: number } {
    const { epoch, sequence } = this.#newest;
    return { epoch, sequence };
  }

  /**
   * The newest retained event about the state of a volume's generation (or, without a volume, about the sandbox
   * itself).
   */
  latest(sandboxId: string, volumeId: string | undefined, generation: number): NewEvent | undefined {
    return [...this.#beforeGap, ...this.#retained, ...this.#waiting].findLast(
      (event) =>
        event.sandboxId === sandboxId &&
        event.volumeId === volumeId &&
        event.generation === generation &&
        (volumeId === undefined || VOLUME_STATES.has(event.type)),
    );
  }

  /**
   * Numbers an event and delivers it.
   * INVARIANT: with a file, an event of an epoch that is kept is on disk before any watcher sees it. Else a daemon that
   * is killed in between would give its number to another event, and a watcher that goes on from that number would miss
   * one.
   */
  emit(event: NewEvent): void {
    this.#waiting.push({ ...event, timeMs: Date.now() });
    if (this.#file === undefined) {
      for (const full of this.#numbered(this.#waiting.splice(0))) this.#deliver(full);
      return;
    }
    this.#writing ??= this.#drain(this.#file).finally(() => {
      this.#writing = undefined;
    });
  }

  /** Resolves once everything that was emitted has been delivered, and is on disk if there is room by now. */
  async flush(): Promise<void> {
    await this.#writing;
    if (this.#unkept) this.#unkept = (await this.#file?.append([], this.#retained)) !== true;
  }

  async #drain(file: EventFile): Promise<void> {
    while (this.#waiting.length > 0) {
      const waiting = [...this.#waiting];
      let batch = this.#numbered(waiting);
      const kept = await file.append(batch, [...this.#retained, ...batch].slice(-this.#limits.retainedMax));
      if (!kept && !this.#unkept) {
        this.#epoch = newEpoch();
        batch = this.#numbered(waiting, farAbove());
      }
      this.#unkept = !kept;
      this.#waiting = this.#waiting.slice(waiting.length);
      for (const event of batch) this.#deliver(event);
    }
  }

  #numbered(events: readonly Unnumbered[], least = 0): readonly ShimEvent[] {
    const first = Math.max(this.#newest.sequence + 1, least);
    return events.map((event, index) => ({ epoch: this.#epoch, sequence: first + index, ...event }));
  }

  #deliver(event: ShimEvent): void {
    this.#newest = event;
    this.#retained.push(event);
    if (this.#retained.length > this.#limits.retainedMax) this.#retained.shift();
    for (const watcher of this.#watchers) watcher.offer(event);
  }

  /**
   * Opens a stream of events, beginning behind an event (undefined: with the next one to be emitted; those that are
   * still on their way to the disk are older than the state that the watcher can see now; `retained`: with the oldest
   * that there is).
   * @throws ShimError OUT_OF_RANGE / EVENTS_LOST when events behind that one are no longer retained, or when it is of
   *   an epoch that does not go on
   * @throws ShimError RESOURCE_EXHAUSTED / TOO_MANY_WATCHERS
   */
  watch(after?: EventToken | 'retained'): Watcher {
    if (this.#watchers.size >= this.#limits.watchersMax) {
      throw new ShimError('RESOURCE_EXHAUSTED', `at most ${this.#limits.watchersMax} watchers may be open`, {
        reason: 'TOO_MANY_WATCHERS',
        metadata: { max: String(this.#limits.watchersMax) },
      });
    }
    const watcher = new Watcher({
      queueMax: this.#limits.watcherQueueMax,
      skip: after === undefined ? this.#waiting.length : 0,
      last: this.newest,
      // Bounded by what is retained: whoever asks for more of it than a queue holds has not been slow.
      replay: after === undefined ? [] : this.#retained.slice(after === 'retained' ? 0 : this.#placeBehind(after)),
      onDispose: () => this.#watchers.delete(watcher),
    });
    this.#watchers.add(watcher);
    return watcher;
  }

  /** Where in `#retained` the events behind this one begin. @throws ShimError EVENTS_LOST */
  #placeBehind(token: EventToken): number {
    const is = (event: { readonly epoch: string; readonly sequence: number }): boolean =>
      event.sequence === token.sequence && (token.epoch === undefined || token.epoch === event.epoch);
    const index = this.#retained.findIndex(is);
    if (index >= 0) return index + 1;
    const { epoch, sequence: newest } = this.#newest;
    const oldest = this.#retained[0] ?? { epoch, sequence: newest + 1 };
    // A bare number from before a gap may be of an event behind which others were told, and lost.
    const acrossGap = token.epoch === undefined && token.sequence <= (this.#beforeGap.at(-1)?.sequence ?? -1);
    if (!acrossGap && is({ epoch: oldest.epoch, sequence: oldest.sequence - 1 })) return 0;
    const of = token.epoch === undefined ? '' : ` of epoch ${token.epoch}`;
    throw new ShimError(
      'OUT_OF_RANGE',
      `events after ${token.sequence}${of} cannot be given: ${oldest.sequence} to ${newest} are retained, the epoch is ${epoch}; list the present state and watch anew`,
      { reason: 'EVENTS_LOST', metadata: { oldest: String(oldest.sequence), newest: String(newest), epoch } },
    );
  }

  /** Ends every stream, for shutdown. */
  close(cause: Error): void {
    for (const watcher of this.#watchers) watcher.fail(cause);
  }
}

/**
 * A number above all that any daemon has given: the time in microseconds. Nobody tells an event in less than one, so
 * the next daemon's is above what was given from here on, however soon it comes.
 */
function farAbove(): number {
  return Math.floor((performance.timeOrigin + performance.now()) * MICROSECONDS_PER_MS);
}

interface WatcherOptions {
  /** Events that may wait besides those of `replay`. */
  readonly queueMax: number;
  /** How many of the next events are not wanted. */
  readonly skip: number;
  /** The last event before the first that is offered. */
  readonly last: EventToken;
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
  #skip: number;
  #last: EventToken;
  #failure: Error | undefined;
  #wake: PromiseWithResolvers<void> | undefined;

  constructor(options: WatcherOptions) {
    this.#options = options;
    this.#queue = [...options.replay];
    this.#bound = options.queueMax + options.replay.length;
    this.#skip = options.skip;
    this.#last = options.last;
  }

  offer(event: ShimEvent): void {
    const { queueMax } = this.#options;
    if (this.#failure !== undefined) return;
    const before = this.#last;
    this.#last = event;
    if (this.#skip > 0) {
      this.#skip -= 1;
      return;
    }
    if (this.#queue.length >= this.#bound) {
      this.fail(
        new ShimError('RESOURCE_EXHAUSTED', `the watcher fell more than ${queueMax} events behind`, {
          reason: 'WATCHER_TOO_SLOW',
          metadata: { lastSequence: String(before.sequence), lastEpoch: before.epoch ?? '' },
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
