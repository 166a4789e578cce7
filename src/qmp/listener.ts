import { waitFor } from '../base/deadline.ts';
import { ShimError } from '../base/errors.ts';
import type { QmpEvent, QmpEventName } from './protocol.ts';

/**
 * One owner's view of the events. Open it before the command whose effect it waits for. Each listener sees every event
 * on its own: a wait never eats an event of another listener.
 */
export interface QmpListener<E extends QmpEventName> extends Disposable, AsyncIterable<QmpEvent<E>> {
  /**
   * The next event, oldest first. Events that came before the connection was lost are handed out before its error.
   * A wait that ended by timeout or signal consumes nothing.
   * @param options.timeoutMs none means no limit
   * @throws ShimError DEADLINE_EXCEEDED / QMP_EVENT_TIMEOUT
   * @throws ShimError UNAVAILABLE / QMP_LOST when the connection ended
   * @throws ShimError RESOURCE_EXHAUSTED / QMP_EVENTS_OVERFLOW when events came faster than they were taken
   * @throws ShimError CANCELLED / QMP_LISTENER_CLOSED when the listener was disposed; the signal's reason when aborted
   */
  next(options?: { readonly signal?: AbortSignal; readonly timeoutMs?: number }): Promise<QmpEvent<E>>;
}

interface Waiter<T> {
  readonly resolve: (event: T) => void;
  readonly reject: (error: Error) => void;
}

/**
 * INVARIANT: `#waiters` and `#queue` are never both non-empty, and `#waiters` is empty once `#ended` is set.
 */
export class EventQueue<E extends QmpEventName> implements QmpListener<E> {
  readonly #names: ReadonlySet<string>;
  readonly #predicate: (event: QmpEvent<E>) => boolean;
  readonly #queueMax: number;
  readonly #onDispose: () => void;
  readonly #queue: QmpEvent<E>[] = [];
  readonly #waiters = new Set<Waiter<QmpEvent<E>>>();
  #ended: Error | undefined;
  #disposed = false;

  constructor(options: {
    readonly names: readonly E[];
    readonly predicate: (event: QmpEvent<E>) => boolean;
    readonly queueMax: number;
    readonly onDispose: () => void;
  }) {
    this.#names = new Set(options.names);
    this.#predicate = options.predicate;
    this.#queueMax = options.queueMax;
    this.#onDispose = options.onDispose;
  }

  /** Called by the client for every event, in wire order. A predicate that throws ends this listener only. */
  offer(event: QmpEvent): void {
    if (this.#ended !== undefined || !this.#isMine(event)) return;
    try {
      if (!this.#predicate(event)) return;
    } catch (error) {
      this.end(new ShimError('INTERNAL', 'a listener predicate failed', { reason: 'QMP_PREDICATE', cause: error }));
      return;
    }
    const [waiter] = this.#waiters;
    if (waiter !== undefined) {
      this.#waiters.delete(waiter);
      waiter.resolve(event);
    } else if (this.#queue.length < this.#queueMax) {
      this.#queue.push(event);
    } else {
      this.end(overflow(this.#queueMax));
    }
  }

  /** Called by the client when the connection ends. The first cause stays. */
  end(cause: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = cause;
    for (const waiter of this.#waiters) waiter.reject(cause);
    this.#waiters.clear();
  }

  async next(options: { readonly signal?: AbortSignal; readonly timeoutMs?: number } = {}): Promise<QmpEvent<E>> {
    const { signal, timeoutMs } = options;
    signal?.throwIfAborted();
    const queued = this.#queue.shift();
    if (queued !== undefined) return queued;
    if (this.#ended !== undefined) throw this.#ended;
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent<E>>();
    const waiter = { resolve, reject };
    this.#waiters.add(waiter);
    // At once, not after this wait's own turn: an event that is being dispatched right now belongs to the queue.
    const takeBack = (): void => void this.#waiters.delete(waiter);
    signal?.addEventListener('abort', takeBack, { once: true });
    try {
      return await waitFor(promise, {
        ...(timeoutMs === undefined ? {} : { milliseconds: timeoutMs }),
        ...(signal === undefined ? {} : { signal }),
        onTimeout: () => this.#timeout(timeoutMs ?? 0),
      });
    } finally {
      takeBack();
      signal?.removeEventListener('abort', takeBack);
    }
  }

  /** Iterates until the listener is disposed; leaving the loop disposes it. Other ends throw as `next` does. */
  async *[Symbol.asyncIterator](): AsyncGenerator<QmpEvent<E>, void, undefined> {
    try {
      for (;;) {
        const event = await this.#nextUntilDisposed();
        if (event === undefined) return;
        yield event;
      }
    } finally {
      this[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#queue.length = 0;
    this.end(new ShimError('CANCELLED', 'the listener was closed', { reason: 'QMP_LISTENER_CLOSED' }));
    this.#onDispose();
  }

  async #nextUntilDisposed(): Promise<QmpEvent<E> | undefined> {
    try {
      return await this.next();
    } catch (error) {
      if (this.#disposed) return undefined;
      throw error;
    }
  }

  #isMine(event: QmpEvent): event is QmpEvent & QmpEvent<E> {
    return this.#names.has(event.event);
  }

  #timeout(timeoutMs: number): ShimError {
    const names = [...this.#names].join(' or ');
    return new ShimError('DEADLINE_EXCEEDED', `${names} did not come within ${timeoutMs} ms`, {
      reason: 'QMP_EVENT_TIMEOUT',
      metadata: { events: names, timeoutMs: String(timeoutMs) },
    });
  }
}

function overflow(queueMax: number): ShimError {
  return new ShimError('RESOURCE_EXHAUSTED', `a listener let more than ${queueMax} events queue up`, {
    reason: 'QMP_EVENTS_OVERFLOW',
    metadata: { queueMax: String(queueMax) },
  });
}
