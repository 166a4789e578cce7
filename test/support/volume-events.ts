import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import type { ApiClient } from './daemon.ts';
import { until } from './until.ts';

/** Follows the events of one volume from the first that is kept; those of a daemon that ends stay known. */
export class VolumeEvents implements Disposable {
  readonly #volumeId: string;
  #seen = new Map<number, Event__Output>();
  #stop: () => void = () => undefined;

  constructor(client: ApiClient, volumeId: string) {
    this.#volumeId = volumeId;
    this.follow(client);
  }

  /** Goes on with another daemon, which tells all that is kept. */
  follow(client: ApiClient): void {
    this.#stop();
    const stream = client.events.watch({ allRetained: true });
    stream.on('error', () => undefined);
    stream.on('data', (event: Event__Output) => {
      if (event.volumeId === this.#volumeId) this.#seen.set(event.sequence, event);
    });
    this.#stop = () => stream.cancel();
  }

  /** Reasons of the events of a type, in their order. */
  reasons(type: string): readonly string[] {
    return [...this.#seen.values()].flatMap((event) => (event.type === type ? [event.cause?.reason ?? ''] : []));
  }

  /** Waits for an event with a reason. */
  async told(reason: string): Promise<Event__Output> {
    return await until(`an event with ${reason}`, () =>
      [...this.#seen.values()].findLast((event) => event.cause?.reason === reason),
    );
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}
