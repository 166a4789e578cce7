/**
 * Loaded into the daemon with `--import record-sockets.ts?directory=DIR`: everything that goes over its unix sockets, in
 * both directions, is appended to DIR/NAME-OF-SOCKET.
 */
import { appendFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { basename, join } from 'node:path';

const directory = new URL(import.meta.url).searchParams.get('directory') ?? '';
const names = new WeakMap<Socket, string>();

function record(socket: Socket, chunk: unknown, encoding?: unknown): void {
  const name = names.get(socket);
  if (name === undefined) return;
  const bytes = typeof chunk === 'string' ? Buffer.from(chunk, encoding as BufferEncoding | undefined) : chunk;
  if (bytes instanceof Uint8Array) appendFileSync(join(directory, name), bytes);
}

// The methods are called with what belongs to them; only their arguments are looked at on the way.
const { connect, write, push } = Socket.prototype;
Socket.prototype.connect = function (this: Socket, ...args: unknown[]) {
  const [first] = args.flat();
  const path = typeof first === 'object' && first !== null && 'path' in first ? first.path : first;
  if (typeof path === 'string') names.set(this, basename(path));
  return Reflect.apply(connect, this, args) as Socket;
} as typeof connect;
Socket.prototype.write = function (this: Socket, ...args: unknown[]) {
  record(this, args[0], typeof args[1] === 'string' ? args[1] : undefined);
  return Reflect.apply(write, this, args) as boolean;
} as typeof write;
Socket.prototype.push = function (this: Socket, ...args: unknown[]) {
  record(this, args[0], args[1]);
  return Reflect.apply(push, this, args) as boolean;
} as typeof push;
