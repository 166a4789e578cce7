import { chmod, chown } from 'node:fs/promises';
import type { Server as NetServer } from 'node:net';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { waitFor } from '../base/deadline.ts';
import type { Logger } from '../base/log.ts';
import { allowLongDeadlines } from './long-deadlines.ts';
import { bindSocket } from './socket.ts';

/** What a connection may cost, for servers whose callers are not trusted. */
export interface ConnectionLimits {
  /** Streams that a connection may have open. */
  readonly streamsMax: number;
  /** Without a stream for so long, a connection is ended. */
  readonly idleMs: number;
  /** How often a silent caller is asked whether it is there, and how long it may take to say so. */
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
}

/** MiB that a connection may hold before it gets no more streams: as much as Exec may answer with, and some room. */
const SESSION_MEMORY_MIB = 32;

/**
 * A gRPC server. Answers may be longer than requests: Exec returns two outputs.
 *
 * @param requestBytesMax -1: of any length
 */
export function newServer({
  requestBytesMax,
  connection,
}: {
  readonly requestBytesMax: number;
  readonly connection?: ConnectionLimits;
}): Server {
  allowLongDeadlines();
  return new Server({
    'grpc.max_receive_message_length': requestBytesMax,
    'grpc.max_send_message_length': -1,
    ...(connection && {
      'grpc.max_concurrent_streams': connection.streamsMax,
      'grpc.max_connection_idle_ms': connection.idleMs,
      'grpc.keepalive_time_ms': connection.keepaliveMs,
      'grpc.keepalive_timeout_ms': connection.keepaliveTimeoutMs,
      'grpc-node.max_session_memory': SESSION_MEMORY_MIB,
    }),
  });
}

/**
 * Has a listener listen on a socket: mode 0600, in a directory of mode 0700; for a group 0660, in one of mode 0710. A
 * stale socket is replaced.
 *
 * @param group id of the group whose members may connect, too
 * @throws ShimError FAILED_PRECONDITION / SOCKET_IN_USE, SOCKET_DIRECTORY_OPEN
 */
export async function listenAt(listener: NetServer, socket: string, group: number | undefined): Promise<void> {
  const bind = async (): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    listener.once('error', reject);
    listener.listen(socket, resolve);
    await promise;
    listener.removeListener('error', reject);
  };
  await bindSocket(socket, bind, 'socket', group);
  // The umask (077, set by main.ts) gave the socket its mode from its first moment.
  if (group !== undefined) await chown(socket, -1, group);
  await chmod(socket, group === undefined ? 0o600 : 0o660);
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

/**
 * Takes no new calls, lets those in progress end for so long, then cuts them off.
 * @param closed resolves when the last connection is closed, where grpc-js does not know of it: connections that it was
 *   handed it does not wait for
 */
export async function drainServer(
  server: Server,
  milliseconds: number,
  log: Logger,
  closed: Promise<void> = Promise.resolve(),
): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.tryShutdown(() => resolve());
  try {
    await waitFor(Promise.all([promise, closed]), { milliseconds });
  } catch {
    log.warn({ milliseconds }, 'calls cut off at the end of the drain');
    server.forceShutdown();
  }
}
