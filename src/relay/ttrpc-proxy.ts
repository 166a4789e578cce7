import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { messageOf } from '../base/errors.ts';
import type { LogOutput } from '../base/log-output.ts';
import type { Request__Output } from '../grpc/generated/ttrpc/Request.ts';
import type { Status } from '../grpc/generated/google/rpc/Status.ts';
import type { Response } from '../grpc/generated/ttrpc/Response.ts';
import { DETAILS_KEY, type PassedCall } from './daemon.ts';
import { METHODS, TASK_SERVICE } from './methods.ts';
import { DATA_BYTES_MAX, encodeFrame, FrameReader, MESSAGE, REMOTE_OPEN, type Frame } from './ttrpc-frames.ts';
import { requestCodec, responseCodec, statusCodec } from './ttrpc-messages.ts';

/** Versions 2 and 3 of the Task service have the same messages: 3 only adds the carriage over gRPC. */
const TASK_SERVICES: readonly string[] = ['containerd.task.v2.Task', TASK_SERVICE];
/** How containerd names the namespace of a call, in ttrpc and in gRPC. */
const NAMESPACE_KEY = 'containerd-namespace-ttrpc';
const NAMESPACE_HEADER = 'containerd-namespace';
/**
 * Calls in progress on one connection, which is one container's: a Wait for each of its processes, and a few short
 * ones.
 */
const CALLS_MAX = 1024;

/** An error that the relay itself answers. */
class Refusal extends Error {
  readonly code: status;
  constructor(code: status, message: string) {
    super(message);
    this.code = code;
  }
}

type Pass = (call: PassedCall) => Promise<Buffer>;

/**
 * Passes containerd's ttrpc calls on to the daemon, as gRPC ones: that is how a containerd without a sandbox Controller
 * (`ctr run`) calls a shim, whatever its version. Requests and responses of the Task service are not decoded.
 */
export class TtrpcProxy {
  readonly #pass: Pass;
  readonly #log: Pick<LogOutput, 'write'>;
  readonly #server: Server;
  readonly #connections = new Set<Socket>();

  constructor(pass: Pass, log: Pick<LogOutput, 'write'>) {
    this.#pass = pass;
    this.#log = log;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  async listen(socket: string): Promise<void> {
    this.#server.listen(socket);
    await once(this.#server, 'listening');
    // A connection that could not be accepted is its caller's loss.
    this.#server.on('error', (error) => this.#log.write(`relay: ttrpc: ${messageOf(error)}\n`));
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#connections) socket.destroy();
  }

  #serve(socket: Socket): void {
    this.#connections.add(socket);
    const gone = new AbortController();
    const connection = new Connection(this.#pass, socket, gone.signal);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      this.#connections.delete(socket);
      gone.abort();
    });
    socket.on('data', (bytes) => {
      try {
        connection.take(bytes);
      } catch (error) {
        this.#log.write(`relay: ttrpc: ${messageOf(error)}\n`);
        socket.destroy();
      }
    });
  }
}

/** The calls of one connection. They end with it. */
class Connection {
  readonly #pass: Pass;
  readonly #socket: Socket;
  readonly #gone: AbortSignal;
  readonly #frames = new FrameReader();
  #lastStreamId = 0;
  #calls = 0;

  constructor(pass: Pass, socket: Socket, gone: AbortSignal) {
    this.#pass = pass;
    this.#socket = socket;
    this.#gone = gone;
  }

  /** @throws Error when the bytes are not ttrpc */
  take(bytes: Buffer): void {
    for (const frame of this.#frames.take(bytes)) {
      // What is neither is from a later version of the protocol, which says to pass over it.
      if (frame.type === MESSAGE.request || frame.type === MESSAGE.data) void this.#answer(frame);
    }
  }

  async #answer(frame: Frame): Promise<void> {
    this.#calls += 1;
    let response: Response;
    try {
      response = { status: { code: status.OK }, payload: await this.#call(frame) };
    } catch (error) {
      response = { status: statusOf(error) };
    }
    this.#calls -= 1;
    if (this.#gone.aborted) return;
    this.#socket.write(encodeFrame(frame.streamId, MESSAGE.response, fitting(response)));
  }

  async #call(frame: Frame): Promise<Buffer> {
    const { method, payload, timeoutNano, metadata } = this.#checked(frame);
    const headers = new Metadata();
    for (const { key, value } of metadata) if (key === NAMESPACE_KEY) headers.set(NAMESPACE_HEADER, value);
    return await this.#pass({
      path: `/${TASK_SERVICE}/${method}`,
      request: Buffer.from(payload),
      metadata: headers,
      deadline: timeoutNano > 0 ? Date.now() + timeoutNano / 1e6 : Infinity,
      cancelled: this.#gone,
    });
  }

  /** Streams have odd numbers that grow, and one request each. */
  #checked({ streamId, type, flags, data }: Frame): Request__Output {
    if (streamId % 2 !== 1) throw new Refusal(status.INVALID_ARGUMENT, `stream ${streamId}: must be odd`);
    if (type === MESSAGE.data) throw new Refusal(status.INVALID_ARGUMENT, `stream ${streamId}: takes no data`);
    if (streamId <= this.#lastStreamId) throw new Refusal(status.INVALID_ARGUMENT, `stream ${streamId}: was used`);
    this.#lastStreamId = streamId;
    if (data === undefined) throw new Refusal(status.RESOURCE_EXHAUSTED, `longer than ${DATA_BYTES_MAX} bytes`);
    if (this.#calls > CALLS_MAX) throw new Refusal(status.RESOURCE_EXHAUSTED, `${CALLS_MAX} calls are in progress`);
    const request = decoded(data);
    const { service, method } = request;
    const known = TASK_SERVICES.includes(service) && METHODS[TASK_SERVICE]?.includes(method) === true;
    if (!known || (flags & REMOTE_OPEN) !== 0) {
      throw new Refusal(status.UNIMPLEMENTED, `${service}/${method} is not served`);
    }
    return request;
  }
}

function decoded(data: Buffer): Request__Output {
  try {
    // A plain view, not a Buffer: protobufjs's reader for Buffers takes a string that is cut off as a shorter one.
    return requestCodec.deserialize(new Uint8Array(data.buffer, data.byteOffset, data.length) as Buffer);
  } catch (error) {
    throw new Refusal(status.INVALID_ARGUMENT, `the request is not a valid protobuf message: ${messageOf(error)}`);
  }
}

/** google.rpc.Status of an error: the daemon's own when it has sent one, with all its details. */
function statusOf(error: unknown): Status {
  if (error instanceof Refusal) return { code: error.code, message: error.message };
  const { code, details, metadata } = error as Partial<ServiceError>;
  const [own] = metadata?.get(DETAILS_KEY) ?? [];
  if (own instanceof Buffer) return statusCodec.deserialize(own);
  return { code: code ?? status.UNKNOWN, message: details ?? messageOf(error) };
}

/** A response that is too long for a frame becomes an error: without an answer the caller would wait for ever. */
function fitting(response: Response): Buffer {
  const bytes = responseCodec.serialize(response);
  if (bytes.length <= DATA_BYTES_MAX) return bytes;
  const message = `the response has ${bytes.length} bytes, more than ${DATA_BYTES_MAX}`;
  return responseCodec.serialize({ status: { code: status.RESOURCE_EXHAUSTED, message } });
}
