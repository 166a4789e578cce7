import { once } from 'node:events';
import {
  Metadata,
  status,
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  type ServiceError,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { monotonicMs } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Access, Asked, Gate, Permit, Target } from '../callers/gate.ts';
import { describeIdentity, type Identity } from '../callers/identity.ts';
import type { Quotas } from '../callers/quotas.ts';
import { toServiceError } from './status.ts';

/**
 * gRPC, whichever service it is:
 *
 *     door.ts: who calls ─▶ server ─▶ handlers.ts: count, decode, admit, cancel ─▶ a service (api/, containerd/wire/)
 *     schema.ts: the protos                 └─ an error ─▶ status.ts ─▶ status, ErrorInfo
 */

/** Marks a request that could not be decoded, so that the handler can answer INVALID_ARGUMENT in our words. */
class MalformedRequest {
  readonly problem: string;

  constructor(problem: string) {
    this.problem = problem;
  }
}

/**
 * A copy of a service definition whose request decoding never throws: grpc-js would answer INTERNAL, as if the server
 * were at fault.
 */
export function tolerant(definition: ServiceDefinition): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(definition).map(([name, method]) => [
      name,
      {
        ...method,
        requestDeserialize: (bytes: Buffer): unknown => {
          try {
            // A plain view, not a Buffer: protobufjs's reader for Buffers takes a string that is cut off as a shorter
            // one.
            return method.requestDeserialize(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) as Buffer);
          } catch (error) {
            return new MalformedRequest(messageOf(error));
          }
        },
      },
    ]),
  );
}

/** What a handler knows of its call. */
export interface CallContext {
  /** Aborted when the caller gave up or its deadline passed. It ends waiting, never work that was begun. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** A header of the call, by its lower-case name; empty when there is none. */
  readonly header: (name: string) => string;
  /** What the caller may do. Of a call with a stream of requests: once the first was read. */
  readonly permit: Permit;
}

const unsendable = { code: status.INTERNAL, details: 'the status could not be sent', metadata: new Metadata() };

/** What all handlers share. */
export interface Edge {
  readonly log: Logger;
  readonly quotas: Quotas;
  readonly gate: Gate;
  /** What an RPC needs, and what a request of it is about; undefined for one that is in no table. */
  readonly accessOf: (rpc: string) => RpcAccess | undefined;
  /** @throws ShimError when it is not known any more */
  readonly identityOf: (metadata: Metadata) => Identity;
  /** Ends streams whose caller may no longer have them. */
  readonly recheck: Recheck;
}

/** One row of the table of all RPCs. */
export interface RpcAccess extends Access {
  /** Throws ShimError INVALID_ARGUMENT for a request that cannot be. */
  readonly target: (request: unknown) => Target;
}

/** Streams that go on, to be asked again when another policy is in force. */
export class Recheck {
  readonly #checks = new Set<() => void>();

  /** Calls `check` whenever another policy is in force, until the answer is disposed of. */
  add(check: () => void): Disposable {
    this.#checks.add(check);
    return { [Symbol.dispose]: () => this.#checks.delete(check) };
  }

  run(): void {
    for (const check of this.#checks) check();
  }
}

/** Wraps an async function as a unary handler: cancellation as a signal, errors mapped and logged once. */
export function unary<Request, Response>(
  edge: Edge,
  rpc: string,
  act: (request: Request, context: CallContext) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  const log = edge.log.child({ rpc });
  return (call, callback) => {
    void answer(log, new Entrance(edge, rpc, call.metadata), call, callback, act);
  };
}

async function answer<Request, Response>(
  log: Logger,
  entrance: Entrance,
  call: ServerUnaryCall<Request, Response>,
  callback: sendUnaryData<Response>,
  act: (request: Request, context: CallContext) => Promise<Response>,
): Promise<void> {
  const startedMs = monotonicMs();
  const controller = new AbortController();
  call.on('cancelled', () => controller.abort(callerGone()));
  try {
    using _counted = entrance.count('calls');
    const request = decoded(call.request);
    await entrance.admit(request);
    const response = await act(request, context(call, entrance, controller.signal, log));
    entrance.ended(undefined);
    log.debug({ milliseconds: monotonicMs() - startedMs }, 'rpc answered');
    callback(null, response);
  } catch (error) {
    entrance.ended(error);
    logFailure(log, error, monotonicMs() - startedMs);
    fail(log, error, (refused) => callback(refused));
  }
}

/** Wraps an async function as a server-streaming handler; `send` resolves when the stream takes more. */
export function streaming<Request, Response>(
  edge: Edge,
  rpc: string,
  act: (request: Request, send: (message: Response) => Promise<void>, context: CallContext) => Promise<void>,
): handleServerStreamingCall<Request, Response> {
  const log = edge.log.child({ rpc });
  return (call) => {
    const entrance = new Entrance(edge, rpc, call.metadata);
    void stream<Response>(log, entrance, call, async (send, context) => {
      const request = decoded(call.request);
      await entrance.admit(request);
      await act(request, send, context);
    });
  };
}

/**
 * Wraps an async function as a handler with streams in both directions. The next message is read when it is asked for:
 * a caller that sends more waits. After the last one `next` says that it is done; it rejects when the call ends before.
 * The first message says what the call is about: it is admitted, or denied, when it is read.
 */
export function bidirectional<Request, Response>(
  edge: Edge,
  rpc: string,
  act: (
    requests: AsyncIterator<Request, void>,
    send: (message: Response) => Promise<void>,
    context: CallContext,
  ) => Promise<void>,
): handleBidiStreamingCall<Request, Response> {
  const log = edge.log.child({ rpc });
  return (call) => {
    const entrance = new Entrance(edge, rpc, call.metadata);
    void stream<Response>(log, entrance, call, (send, context) => act(requestsOf(call, entrance), send, context));
  };
}

async function* requestsOf<Request>(
  call: Pick<ServerDuplexStream<Request, unknown>, 'iterator'>,
  entrance: Entrance,
): AsyncGenerator<Request, void> {
  // The call goes on for answers when nobody reads requests any more.
  for await (const message of call.iterator({ destroyOnReturn: false }) as AsyncIterable<Request>) {
    const request = decoded(message);
    if (!entrance.admitted) await entrance.admit(request);
    yield request;
  }
}

async function stream<Response>(
  log: Logger,
  entrance: Entrance,
  call: ServerWritableStream<unknown, Response> | ServerDuplexStream<unknown, Response>,
  act: (send: (message: Response) => Promise<void>, context: CallContext) => Promise<void>,
): Promise<void> {
  const startedMs = monotonicMs();
  const controller = new AbortController();
  const { signal } = controller;
  call.on('cancelled', () => controller.abort(callerGone()));
  const send = async (message: Response): Promise<void> => {
    signal.throwIfAborted();
    if (!call.write(message)) await once(call, 'drain', { signal });
  };
  try {
    using _counted = entrance.count('streams');
    using _asked = entrance.askAgain((refusal) => controller.abort(refusal));
    // The headers tell the client that the stream is open, before the first message.
    call.sendMetadata(new Metadata());
    await act(send, context(call, entrance, signal, log));
    entrance.ended(undefined);
    call.end();
  } catch (error) {
    entrance.ended(error);
    if (signal.aborted && !isShimError(signal.reason, 'PERMISSION_DENIED')) {
      call.end();
      return;
    }
    const refusal: unknown = signal.aborted ? signal.reason : error;
    logFailure(log, refusal, monotonicMs() - startedMs);
    fail(log, refusal, (refused) => call.emit('error', refused));
  }
}

/** One call's way in: whose it is, that it counts, what it may do, and how it ended. */
class Entrance {
  readonly #edge: Edge;
  readonly #rpc: string;
  readonly #metadata: Metadata;
  #identity: Identity | undefined;
  #asked: Asked | undefined;
  #permit: Permit | undefined;
  #over = false;

  constructor(edge: Edge, rpc: string, metadata: Metadata) {
    this.#edge = edge;
    this.#rpc = rpc;
    this.#metadata = metadata;
  }

  get admitted(): boolean {
    return this.#permit !== undefined;
  }

  /** @throws Error when nothing has been admitted: a handler acts on what it has not read */
  get permit(): Permit {
    if (this.#permit === undefined) throw new Error(`${this.#rpc} acts before it was admitted`);
    return this.#permit;
  }

  /** @throws ShimError RESOURCE_EXHAUSTED / TOO_MANY_CALLS; CANCELLED / CALLER_GONE */
  count(kind: 'calls' | 'streams'): Disposable {
    return this.#edge.quotas.enter(describeIdentity(this.#who()), kind);
  }

  /** @throws what Gate.admit throws, and what the table's target throws */
  async admit(request: unknown): Promise<void> {
    const access = this.#edge.accessOf(this.#rpc);
    // A test holds the table against all methods; one that it misses is nobody's.
    if (access === undefined) throw new Error(`${this.#rpc} is in no table of what RPCs need`);
    this.#asked = { rpc: this.#rpc, access, identity: this.#who(), target: access.target(request) };
    this.#permit = await this.#edge.gate.admit(this.#asked);
  }

  /** Calls `denied` when another policy is in force, and does not let this call pass. */
  askAgain(denied: (refusal: ShimError) => void): Disposable {
    return this.#edge.recheck.add(() => {
      if (this.#asked === undefined || this.#permit === undefined) return;
      const decision = this.#edge.gate.decide(this.#asked);
      if (decision instanceof ShimError) denied(decision);
    });
  }

  ended(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#permit?.ended(error);
  }

  #who(): Identity {
    this.#identity ??= this.#edge.identityOf(this.#metadata);
    return this.#identity;
  }
}

/** Sends the status of an error. grpc-js throws where it cannot encode one: that costs this call, not the daemon. */
function fail(log: Logger, error: unknown, send: (refused: ServiceError) => unknown): void {
  try {
    send(toServiceError(error));
  } catch (problem) {
    log.error({ err: problem }, 'status not sent');
    send(Object.assign(new Error('the status could not be sent'), unsendable));
  }
}

function context(
  call: { readonly metadata: Metadata },
  entrance: Entrance,
  signal: AbortSignal,
  log: Logger,
): CallContext {
  return {
    ...{ signal, log },
    header: (name) => call.metadata.get(name).map(String).join(','),
    get permit() {
      return entrance.permit;
    },
  };
}

function decoded<Request>(request: Request): Request {
  if (request instanceof MalformedRequest) {
    throw new ShimError('INVALID_ARGUMENT', `the request is not a valid protobuf message: ${request.problem}`, {
      reason: 'MALFORMED_REQUEST',
    });
  }
  return request;
}

function callerGone(): ShimError {
  return new ShimError('CANCELLED', 'the caller gave up waiting; what was begun goes on', { reason: 'CALLER_GONE' });
}

/** Errors are logged once, here. Only what is our own fault is an error in the log. */
function logFailure(log: Logger, error: unknown, milliseconds: number): void {
  if (isShimError(error) && error.code !== 'INTERNAL') {
    log.info({ code: error.code, reason: error.reason, problem: error.message, milliseconds }, 'rpc refused');
    return;
  }
  log.error({ code: status[status.INTERNAL], err: error, milliseconds }, 'rpc failed');
}
