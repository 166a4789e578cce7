import type { Metadata, sendUnaryData, Server, ServerUnaryCall, ServiceError } from '@grpc/grpc-js';
import { bindServer, newServer } from '../grpc/server.ts';
import type { DaemonClient } from './daemon.ts';
import { METHODS } from './methods.ts';

/**
 * The relay, between containerd and whichever daemon runs:
 *
 *     containerd ─┬─ gRPC ──▶ proxy.ts ───────┬─▶ daemon.ts ─▶ qshimd, and the next one when this one goes
 *                 └─ ttrpc ─▶ ttrpc-proxy.ts ─┘
 *     qshimd ─ control.ts ─▶ holds.ts: FIFOs that stay open
 */

const identity = (bytes: Buffer): Buffer => bytes;

/**
 * Passes containerd's gRPC calls on to the daemon, undecoded. To containerd a connection that breaks is the end of
 * every container behind it (CRI records exit code 255 and kills what still runs); this one lasts.
 */
export class GrpcProxy {
  readonly #server = newServer({ requestBytesMax: -1 });
  readonly #daemon: DaemonClient;

  constructor(daemon: DaemonClient) {
    this.#daemon = daemon;
    for (const [service, methods] of Object.entries(METHODS)) {
      const entries = methods.map((method) => [method, `/${service}/${method}`] as const);
      this.#server.addService(
        Object.fromEntries(entries.map(([method, path]) => [method, definition(path)])) as ServiceOf<Server>,
        Object.fromEntries(entries.map(([method, path]) => [method, this.#handler(path)])),
      );
    }
  }

  async listen(socket: string): Promise<void> {
    await bindServer(this.#server, socket);
  }

  close(): void {
    this.#server.forceShutdown();
  }

  #handler(path: string): (call: Call, callback: sendUnaryData<Buffer>) => void {
    return (call, callback) => {
      const { request } = call;
      const cancelled = new AbortController();
      call.on('cancelled', () => cancelled.abort());
      const passed = { path, request, metadata: forwarded(call.metadata), deadline: call.getDeadline() };
      this.#daemon.pass({ ...passed, cancelled: cancelled.signal }).then(
        (response) => callback(null, response),
        (error: unknown) => callback(error as ServiceError),
      );
    };
  }
}

type Call = ServerUnaryCall<Buffer, Buffer>;
type ServiceOf<S extends Server> = Parameters<S['addService']>[0];

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
