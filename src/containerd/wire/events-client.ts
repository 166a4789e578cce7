import { credentials, Metadata, status } from '@grpc/grpc-js';
import type { EventsClient as Client } from '../../grpc/generated/containerd/services/events/v1/Events.ts';
import type { ForwardedEvent } from '../forwarder.ts';
import { timestampOf } from './messages.ts';
import { loadContainerdApi } from './schema.ts';

const FORWARD_MS = 10_000;
/** containerd will say the same the next time. */
const FINAL: readonly status[] = [status.INVALID_ARGUMENT, status.UNIMPLEMENTED, status.FAILED_PRECONDITION];

/** Sends events to containerd's own socket (`containerd.services.events.v1.Events/Forward`). */
export class EventsClient implements Disposable {
  readonly #client: Client;

  constructor(address: string) {
    const { Events } = loadContainerdApi().containerd.services.events.v1;
    this.#client = new Events(`unix:${address}`, credentials.createInsecure(), {
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2000,
    });
  }

  /** @returns false when containerd refuses it for good; rejects when it should be tried again */
  async forward(event: ForwardedEvent, signal: AbortSignal): Promise<boolean> {
    const metadata = new Metadata();
    metadata.set('containerd-namespace', event.namespace);
    const envelope = {
      timestamp: timestampOf(event.timeMs),
      namespace: event.namespace,
      topic: event.topic,
      event: { type_url: event.typeUrl, value: Buffer.from(event.value, 'base64') },
    };
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const call = this.#client.forward({ envelope }, metadata, { deadline: Date.now() + FORWARD_MS }, (error) => {
      if (error === null) resolve(true);
      else if (FINAL.includes(error.code)) resolve(false);
      else reject(error);
    });
    const cancel = (): void => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
