import assert from 'node:assert/strict';
import type { ClientReadableStream } from '@grpc/grpc-js';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import type { ApiClient } from './daemon.ts';

const LEGAL: Readonly<Record<string, readonly string[]>> = {
  'volume.pending': ['volume.attached', 'volume.removed'],
  'volume.attached': ['volume.detaching', 'volume.removed'],
  'volume.detaching': ['volume.attached', 'volume.removed'],
  'volume.removed': [],
};

/** Follows all events of a daemon, over its restarts, and holds their numbers and their order against the rules. */
export class EventTail implements Disposable {
  /** The newest event about the state of each generation. */
  readonly latest = new Map<number, Event__Output>();
  /** Breaches of the rules, as the stream itself cannot throw into a test. */
  readonly problems: string[] = [];
  /** Set while a daemon may have been killed between an observation and its record: states may then be told again. */
  retold = false;
  #sequence = 0;
  #stream: ClientReadableStream<Event__Output> | undefined;

  /** Opens the stream; after the first time it goes on behind the last event that came. */
  async follow(client: ApiClient): Promise<void> {
    this.#stream?.cancel();
    const stream = client.events.watch({ afterSequence: this.#sequence });
    this.#stream = stream;
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    stream.on('metadata', () => resolve(undefined));
    // A stream that ends with its daemon is opened again; one that ends too early shows in what is missing.
    stream.on('error', (error) => reject(error));
    stream.on('data', (event: Event__Output) => this.#take(event));
    promise.catch(() => undefined);
    await promise;
  }

  /** @throws AssertionError with all that was wrong so far */
  check(): void {
    assert.deepEqual(this.problems, []);
  }

  /** Forgets the volumes of a sandbox that is gone; numbers go on. */
  forget(): void {
    this.latest.clear();
    this.retold = false;
  }

  [Symbol.dispose](): void {
    this.#stream?.cancel();
  }

  #take(event: Event__Output): void {
    if (this.#sequence !== 0 && event.sequence !== this.#sequence + 1) {
      this.problems.push(`event ${event.sequence} (${event.type}) follows ${this.#sequence}`);
    }
    this.#sequence = event.sequence;
    if (event.volumeId === '' || event.type === 'volume.health') return;
    const before = this.latest.get(event.generation);
    this.latest.set(event.generation, event);
    const allowed = before === undefined ? ['volume.pending'] : (LEGAL[before.type] ?? []);
    if (this.retold || allowed.includes(event.type)) return;
    this.problems.push(`${event.volumeId}/${event.generation}: ${event.type} after ${before?.type ?? 'nothing'}`);
  }
}
