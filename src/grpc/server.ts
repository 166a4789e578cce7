import { chmod } from 'node:fs/promises';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { waitFor } from '../base/deadline.ts';
import type { Logger } from '../base/log.ts';
import { allowLongDeadlines } from './long-deadlines.ts';
import { bindSocket } from './socket.ts';

/**
 * A gRPC server that takes requests of so many bytes. Answers may be longer than requests: Exec returns two outputs.
 *
 * @param requestBytesMax -1: of any length
 */
export function newServer(requestBytesMax: number): Server {
  allowLongDeadlines();
  return new Server({
    'grpc.max_receive_message_length': requestBytesMax,
    'grpc.max_send_message_length': -1,
  });
}

/** Binds a server to a socket path that is free. @throws Error of grpc-js */
export async function bindServer(server: Server, socket: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) => {
    if (error === null) resolve();
    else reject(error);
  });
  await promise;
}

/**
 * Has a server listen on a socket: mode 0600, in a directory of mode 0700. A stale socket is replaced.
 *
 * @param option whose value the path follows from, for messages
 * @throws ShimError FAILED_PRECONDITION / SOCKET_IN_USE, SOCKET_DIRECTORY_OPEN
 */
export async function listenOn(server: Server, socket: string, option: 'socket' | 'state_dir'): Promise<void> {
  await bindSocket(socket, () => bindServer(server, socket), option);
  // The umask (077, set by main.ts) gave the socket its mode from its first moment; chmod says so again.
  await chmod(socket, 0o600);
}

/** Takes no new calls, lets those in progress end for so long, then cuts them off. */
export async function drainServer(server: Server, milliseconds: number, log: Logger): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.tryShutdown(() => resolve());
  try {
    await waitFor(promise, { milliseconds });
  } catch {
    log.warn({ milliseconds }, 'calls cut off at the end of the drain');
    server.forceShutdown();
  }
}
