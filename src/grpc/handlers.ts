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
import { toServiceError } from './status.ts';

/**
 * gRPC, whichever service it is:
 *
 *     socket.ts: claimed, bound ─▶ server ─▶ handlers.ts: count, decode, cancel ─▶ a service (api/, containerd/wire/)
 *     schema.ts: the protos                       └─ an error ─▶ status.ts ─▶ status, ErrorInfo
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
}

/** How many of something may be in progress at once; one more is refused, and those in progress do not notice. */
export class Budget {
  readonly #what: string;
  readonly #max: number;
  #used = 0;

  constructor(what: string, max: number) {
    this.#what = what;
    this.#max = max;
  }

  /** @throws ShimError RESOURCE_EXHAUSTED / TOO_MANY_CALLS */
  enter(): Disposable {
    if (this.#used >= this.#max) {
      throw new ShimError('RESOURCE_EXHAUSTED', `${this.#max} ${this.#what} are in progress already`, {
        reason: 'TOO_MANY_CALLS',
        metadata: { what: this.#what, max: String(this.#max) },
      });
    }
    this.#used += 1;
    return { [Symbol.dispose]: () => (this.#used -= 1) };
  }
}

const unsendable = { code: status.INTERNAL, details: 'the status could not be sent', metadata: new Metadata() };

/** What all handlers share. */
export interface Edge {
  readonly log: Logger;
  readonly calls: Budget;
  readonly streams: Budget;
}

/** Wraps an async function as a unary handler: cancellation as a signal, errors mapped and logged once. */
export function unary<Request, Response>(
  edge: Edge,
  rpc: string,
  act: (request: Request, context: CallContext) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  const log = edge.log.child({ rpc });
  return (call, callback) => {
    void answer(log, edge.calls, call, callback, act);
  };
}

async function answer<Request, Response>(
  log: Logger,
  budget: Budget,
  call: ServerUnaryCall<Request, Response>,
  callback: sendUnaryData<Response>,
  act: (request: Request, context: CallContext) => Promise<Response>,
): Promise<void> {
  const startedMs = monotonicMs();
  const controller = new AbortController();
  call.on('cancelled', () => controller.abort(callerGone()));
  try {
    using _counted = budget.enter();
    const response = await act(decoded(call.request), context(call, controller.signal, log));
    log.debug({ milliseconds: monotonicMs() - startedMs }, 'rpc answered');
    callback(null, response);
  } catch (error) {
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
    void stream<Response>(log, edge.streams, call, (send, context) => act(decoded(call.request), send, context));
  };
}

/**
 * Wraps an async function as a handler with streams in both directions. The next message is read when it is asked for:
 * a caller that sends more waits. After the last one `next` says that it is done; it rejects when the call ends before.
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
    void stream<Response>(log, edge.streams, call, (send, context) => act(requestsOf(call), send, context));
  };
}

async function* requestsOf<Request>(
  call: Pick<ServerDuplexStream<Request, unknown>, 'iterator'>,
): AsyncGenerator<Request, void> {
  // The call goes on for answers when nobody reads requests any more.
  for await (const request of call.iterator({ destroyOnReturn: false }) as AsyncIterable<Request>) {
    yield decoded(request);
  }
}

async function stream<Response>(
  log: Logger,
  budget: Budget,
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
    using _counted = budget.enter();
    // The headers tell the client that the stream is open, before the first message.
    call.sendMetadata(new Metadata());
    await act(send, context(call, signal, log));
    call.end();
  } catch (error) {
    if (signal.aborted) {
      call.end();
      return;
    }
    logFailure(log, error, monotonicMs() - startedMs);
    fail(log, error, (refused) => call.emit('error', refused));
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

function context(call: { readonly metadata: Metadata }, signal: AbortSignal, log: Logger): CallContext {
  return { signal, log, header: (name) => call.metadata.get(name).map(String).join(',') };
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
