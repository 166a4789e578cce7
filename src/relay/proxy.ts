import {
  Client,
  credentials,
  Server,
  ServerCredentials,
  status,
  type Metadata,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServiceError,
} from '@grpc/grpc-js';
import { Deadline, sleep } from '../base/deadline.ts';

/** Every method that containerd calls. All are unary, and answering a repeat like the first call is the daemon's duty. */
const METHODS: Readonly<Record<string, readonly string[]>> = {
  'containerd.services.sandbox.v1.Controller': [
    ...['Create', 'Start', 'Platform', 'Stop', 'Wait', 'Status', 'Shutdown', 'Metrics', 'Update'],
  ],
  'containerd.task.v3.Task': [
    ...['State', 'Create', 'Start', 'Delete', 'Pids', 'Pause', 'Resume', 'Checkpoint', 'Kill', 'Exec', 'ResizePty'],
    ...['CloseIO', 'Update', 'Wait', 'Stats', 'Connect', 'Shutdown'],
  ],
};

/** Held by containerd for as long as a container or pod runs. */
const HELD_METHOD = 'Wait';
/** How long other calls wait for a daemon that is being restarted. */
const AWAY_MS = 60_000;
const RETRY_MS = 50;
/** A daemon that speaks has put this trailer on its error; what the connection's end makes of a call has none. */
const DETAILS_KEY = 'grpc-status-details-bin';
/** In the details of a daemon that is about to end: the next one shall answer. */
const STOPPING = 'DAEMON_STOPPING';

/** What grpc-js makes of a connection that ended, by how it ended. */
const AWAY_CODES: readonly status[] = [status.UNAVAILABLE, status.CANCELLED, status.INTERNAL, status.UNKNOWN];

const identity = (bytes: Buffer): Buffer => bytes;

/**
 * Passes containerd's calls on to the daemon, undecoded. When the daemon goes away in the middle of a call, the call is made
 * again of the next daemon, and containerd notices nothing but the time: to containerd a connection that breaks is the end of
 * every container behind it (CRI records exit code 255 and kills what still runs).
 */
export class Proxy {
  readonly #server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
  readonly #daemon: Client;

  /** @param backend the daemon's socket */
  constructor(backend: string) {
    this.#daemon = new Client(`unix:${backend}`, credentials.createInsecure(), {
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.min_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 500,
      'grpc.max_receive_message_length': -1,
    });
    for (const [service, methods] of Object.entries(METHODS)) {
      const pass = (method: string): [string, object] => [method, definition(`/${service}/${method}`)];
      const handlers = methods.map((method) => [method, this.#handler(`/${service}/${method}`, method)] as const);
      this.#server.addService(
        Object.fromEntries(methods.map(pass)) as Parameters<Server['addService']>[0],
        Object.fromEntries(handlers),
      );
    }
  }

  async listen(socket: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) resolve();
      else reject(error);
    });
    await promise;
  }

  close(): void {
    this.#server.forceShutdown();
    this.#daemon.close();
  }

  #handler(path: string, method: string): (call: Call, callback: sendUnaryData<Buffer>) => void {
    return (call, callback) => {
      this.#pass(path, method === HELD_METHOD, call).then(
        (response) => callback(null, response),
        (error: unknown) => callback(error as ServiceError),
      );
    };
  }

  async #pass(path: string, held: boolean, call: Call): Promise<Buffer> {
    const away = Deadline.after(held ? Number.MAX_SAFE_INTEGER : AWAY_MS);
    const cancelled = new AbortController();
    call.on('cancelled', () => cancelled.abort());
    for (;;) {
      try {
        return await this.#once(path, call, cancelled.signal);
      } catch (error) {
        if (cancelled.signal.aborted || away.expired || !daemonIsAway(error as ServiceError)) throw error;
        await sleep(RETRY_MS, cancelled.signal);
      }
    }
  }

  async #once(path: string, call: Call, cancelled: AbortSignal): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const options = { deadline: call.getDeadline() };
    const passed = this.#daemon.makeUnaryRequest(
      path,
      identity,
      identity,
      call.request,
      forwarded(call.metadata),
      options,
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

type Call = ServerUnaryCall<Buffer, Buffer>;

function definition(path: string): object {
  return {
    path,
    requestStream: false,
    responseStream: false,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}

/** containerd's own headers; what belongs to the connection is made anew. */
function forwarded(metadata: Metadata): Metadata {
  const copy = metadata.clone();
  for (const name of Object.keys(copy.getMap())) {
    if (!name.startsWith('containerd-')) copy.remove(name);
  }
  return copy;
}

function daemonIsAway(error: Partial<ServiceError>): boolean {
  const details = error.metadata?.get(DETAILS_KEY) ?? [];
  if (details.length > 0) return details.some((each) => each.includes(STOPPING));
  const { code } = error;
  return code !== undefined && AWAY_CODES.includes(code);
}
