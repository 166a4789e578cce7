/**
 * Loaded into the daemon with `--import record-sockets-main.ts?directory=DIR`: everything that goes over its unix
 * sockets, in both directions, is appended to DIR/NAME-OF-SOCKET.
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

/** Puts a look at the arguments before a method of every socket; what it does stays the same. */
function watch(name: 'connect' | 'write' | 'push', look: (socket: Socket, args: readonly unknown[]) => void): void {
  const method: unknown = Reflect.get(Socket.prototype, name);
  if (typeof method !== 'function') throw new Error(`sockets have no ${name}`);
  Reflect.set(Socket.prototype, name, function (this: Socket, ...args: unknown[]): unknown {
    look(this, args);
    const result: unknown = Reflect.apply(method, this, args);
    return result;
  });
}

watch('connect', (socket, args) => {
  const [first] = args.flat();
  const path = typeof first === 'object' && first !== null && 'path' in first ? first.path : first;
  if (typeof path === 'string') names.set(socket, basename(path));
});
watch('write', (socket, [chunk, encoding]) =>
  record(socket, chunk, typeof encoding === 'string' ? encoding : undefined),
);
watch('push', (socket, [chunk, encoding]) => record(socket, chunk, encoding));
