import { ShimError } from '../base/errors.ts';
import type { Cause } from '../device/state.ts';

/** How long one phase took, milliseconds. */
export interface Timing {
  readonly phase: string;
  readonly milliseconds: number;
}

export type EventType =
  | 'sandbox.creating'
  | 'sandbox.running'
  | 'sandbox.stopping'
  | 'sandbox.stopped'
  | 'sandbox.deleted'
  | 'sandbox.adopted'
  | 'sandbox.rebooted'
  | 'sandbox.panicked'
  | 'sandbox.snapshot'
  | 'volume.pending'
  | 'volume.attached'
  | 'volume.detaching'
  | 'volume.removed'
  | 'volume.io_error'
  | 'volume.snapshot';

/** One observed change. `subject` is a snapshot of the sandbox or volume as it was right after. */
export interface ShimEvent {
  readonly sequence: number;
  readonly timeMs: number;
  readonly type: EventType;
  readonly sandboxId: string;
  /** Undefined for events of the sandbox itself. */
  readonly volumeId: string | undefined;
  readonly generation: number;
  readonly cause: Cause | undefined;
  readonly timings: readonly Timing[];
  readonly subject: unknown;
}

export type NewEvent = Omit<ShimEvent, 'sequence' | 'timeMs'>;

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
  readonly #retained: ShimEvent[] = [];
  readonly #watchers = new Set<Watcher>();
  #sequence = 0;

  constructor(limits: EventLogLimits) {
    this.#limits = limits;
  }

  /** Sequence number of the newest event. */
  get sequence(): number {
    return this.#sequence;
  }

  emit(event: NewEvent): void {
    this.#sequence += 1;
    const full: ShimEvent = { ...event, sequence: this.#sequence, timeMs: Date.now() };
    this.#retained.push(full);
    if (this.#retained.length > this.#limits.retainedMax) this.#retained.shift();
    for (const watcher of this.#watchers) watcher.offer(full);
  }

  /**
   * Opens a stream of events, beginning after `afterSequence` (undefined: with the next one).
   * @throws ShimError OUT_OF_RANGE / EVENTS_LOST when events after that number are no longer retained
   * @throws ShimError RESOURCE_EXHAUSTED / TOO_MANY_WATCHERS
   */
  watch(afterSequence?: number): Watcher {
    if (this.#watchers.size >= this.#limits.watchersMax) {
      throw new ShimError('RESOURCE_EXHAUSTED', `at most ${this.#limits.watchersMax} watchers may be open`, {
        reason: 'TOO_MANY_WATCHERS',
        metadata: { max: String(this.#limits.watchersMax) },
      });
    }
    const watcher = new Watcher(this.#limits.watcherQueueMax, () => this.#watchers.delete(watcher));
    if (afterSequence !== undefined) {
      const oldest = this.#retained[0]?.sequence ?? this.#sequence + 1;
      if (afterSequence + 1 < oldest || afterSequence > this.#sequence) {
        throw new ShimError(
          'OUT_OF_RANGE',
          `events after ${afterSequence} cannot be given: ${oldest} to ${this.#sequence} are retained; list the present state and watch anew`,
          { reason: 'EVENTS_LOST', metadata: { oldest: String(oldest), newest: String(this.#sequence) } },
        );
      }
      for (const event of this.#retained) if (event.sequence > afterSequence) watcher.offer(event);
    }
    this.#watchers.add(watcher);
    return watcher;
  }

  /** Ends every stream, for shutdown. */
  close(cause: Error): void {
    for (const watcher of this.#watchers) watcher.fail(cause);
  }
}

/** One stream of events with a bounded queue. Whoever opened it disposes of it. */
export class Watcher implements Disposable {
  readonly #queueMax: number;
  readonly #onDispose: () => void;
  #queue: ShimEvent[] = [];
  #failure: Error | undefined;
  #wake: PromiseWithResolvers<void> | undefined;

  constructor(queueMax: number, onDispose: () => void) {
    this.#queueMax = queueMax;
    this.#onDispose = onDispose;
  }

  offer(event: ShimEvent): void {
    if (this.#failure !== undefined) return;
    if (this.#queue.length >= this.#queueMax) {
      this.fail(
        new ShimError('RESOURCE_EXHAUSTED', `the watcher fell more than ${this.#queueMax} events behind`, {
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
    this.#onDispose();
    this.fail(new ShimError('CANCELLED', 'the watcher was closed', { reason: 'CANCELLED' }));
  }
}
