import { subscribe } from 'node:diagnostics_channel';
import type { ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { Metadata } from '@grpc/grpc-js';
import { ShimError } from '../base/errors.ts';
import type { Identity } from '../callers/identity.ts';

/**
 * From a call to its connection: grpc-js does not tell. The number of the connection travels in a header that no caller
 * can set, since it is written over just before grpc-js reads the headers.
 *
 *     door.ts: accept, identity ─▶ Connection ─ tag ─▶ socket
 *     node:http2: a stream ──────▶ its socket's tag ─▶ header ─▶ grpc-js ─▶ handlers.ts: connectionOf(metadata)
 */

/** Published by node:http2 before the server's own listeners get the stream, with the headers that they will get. */
const STREAM_CREATED = 'http2.server.stream.created';
const HEADER = 'qshim-connection';
const TAG = Symbol('connection');

/** Of a connection, from its first byte to its end. */
export interface Connection {
  readonly number: number;
  readonly identity: Identity;
  /** Sees every stream of the connection, before it is served. */
  readonly opened: (stream: ServerHttp2Stream) => void;
}

const connections = new Map<number, Connection>();
let last = 0;
let listening = false;

/** Takes note of a connection, until its socket closes. */
export function tagConnection(
  socket: Duplex,
  identity: Identity,
  opened: (stream: ServerHttp2Stream) => void,
): Connection {
  listen();
  last += 1;
  const connection = { number: last, identity, opened };
  Reflect.set(socket, TAG, connection);
  connections.set(connection.number, connection);
  socket.once('close', () => connections.delete(connection.number));
  return connection;
}

/** @throws ShimError CANCELLED / CALLER_GONE when the connection has closed meanwhile */
export function connectionOf(metadata: Metadata): Connection {
  const [value] = metadata.get(HEADER);
  const connection = typeof value === 'string' ? connections.get(Number(value)) : undefined;
  if (connection === undefined) {
    throw new ShimError('CANCELLED', 'the connection of the call has closed', { reason: 'CALLER_GONE' });
  }
  return connection;
}

function listen(): void {
  if (listening) return;
  listening = true;
  subscribe(STREAM_CREATED, (message) => {
    const { stream, headers } = message as {
      readonly stream: ServerHttp2Stream;
      readonly headers: Record<string, unknown>;
    };
    const tag: unknown = stream.session?.socket === undefined ? undefined : Reflect.get(stream.session.socket, TAG);
    // The tag is only ever set by tagConnection.
    const connection = tag as Connection | undefined;
    if (connection === undefined) {
      Reflect.deleteProperty(headers, HEADER);
      return;
    }
    headers[HEADER] = String(connection.number);
    connection.opened(stream);
  });
}
