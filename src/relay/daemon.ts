import {
  Client,
  credentials,
  status,
  type Deadline as CallDeadline,
  type Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { Deadline, sleep } from '../base/deadline.ts';

/** Held by containerd for as long as a container or pod runs. */
const HELD_METHOD = /\/Wait$/;
/** How long other calls wait for a daemon that is being restarted. */
const AWAY_MS = 60_000;
const RETRY_MS = 50;
/** A daemon that speaks has put this trailer on its error; what the connection's end makes of a call has none. */
export const DETAILS_KEY = 'grpc-status-details-bin';
/** In the details of a daemon that is about to end: the next one shall answer. */
const STOPPING = 'DAEMON_STOPPING';

/** What grpc-js makes of a connection that ended, by how it ended. */
const AWAY_CODES: readonly status[] = [status.UNAVAILABLE, status.CANCELLED, status.INTERNAL, status.UNKNOWN];

/** A call of containerd's, undecoded. */
export interface PassedCall {
  /** As in HTTP/2: /SERVICE/METHOD. */
  readonly path: string;
  readonly request: Buffer;
  readonly metadata: Metadata;
  readonly deadline: CallDeadline;
  /** Aborted when the caller has gone. */
  readonly cancelled: AbortSignal;
}

const identity = (bytes: Buffer): Buffer => bytes;

/**
 * Makes calls of the daemon. When it goes away in the middle of one, the call is made again of the next daemon, and the
 * caller notices nothing but the time: all calls are unary, and answering a repeat like the first one is the daemon's
 * duty.
 */
export class DaemonClient {
  readonly #client: Client;
  readonly #patienceMs: number;

  /** @param backend the daemon's socket. @param patienceMs how long calls wait for a daemon that is being restarted */
  constructor(backend: string, patienceMs = AWAY_MS) {
    this.#patienceMs = patienceMs;
    this.#client = new Client(`unix:${backend}`, credentials.createInsecure(), {
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.min_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 500,
      'grpc.max_receive_message_length': -1,
    });
  }

  close(): void {
    this.#client.close();
  }

  /** @throws ServiceError */
  async pass(call: PassedCall): Promise<Buffer> {
    const patienceMs = HELD_METHOD.test(call.path) ? Number.MAX_SAFE_INTEGER : this.#patienceMs;
    // From the first sign that the daemon is away: the call itself may have taken long before.
    let away: Deadline | undefined;
    for (;;) {
      try {
        return await this.#once(call);
      } catch (error) {
        if (call.cancelled.aborted || !daemonIsAway(error as ServiceError)) throw error;
        away ??= Deadline.after(patienceMs);
        if (away.expired) throw error;
        await sleep(RETRY_MS, call.cancelled);
      }
    }
  }

  async #once({ path, request, metadata, deadline, cancelled }: PassedCall): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const passed = this.#client.makeUnaryRequest(
      path,
      identity,
      identity,
      request,
      metadata,
      { deadline },
      (error, response) => {
        if (error === null && response !== undefined) resolve(response);
        else reject(error ?? new Error('neither an error nor a response'));
      },
    );
    const cancel = (): void => passed.cancel();
    cancelled.addEventListener('abort', cancel, { once: true });
    try {
      return await promise;
    } finally {
      cancelled.removeEventListener('abort', cancel);
    }
  }
}

function daemonIsAway(error: Partial<ServiceError>): boolean {
  const details = error.metadata?.get(DETAILS_KEY) ?? [];
  if (details.length > 0) return details.some((each) => each.includes(STOPPING));
  const { code } = error;
  return code !== undefined && AWAY_CODES.includes(code);
}
