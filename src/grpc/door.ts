import { createServer, type Server as NetServer, type Socket } from 'node:net';
import { createServer as createTlsServer, type Server as TlsServer, type TLSSocket } from 'node:tls';
import { ServerCredentials, type ConnectionInjector, type Server } from '@grpc/grpc-js';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { describeIdentity, type Identity } from '../callers/identity.ts';
import type { Quotas } from '../callers/quotas.ts';
import { tagConnection } from './connections.ts';
import { certificateAt, userAt } from './peer.ts';
import type { Unfinished } from './unfinished.ts';

/** TLS handshakes that may be in progress at once, by callers that nobody knows yet; and how long one may take. */
const HANDSHAKES_MAX = 64;
const HANDSHAKE_MS = 10_000;
const TLS_VERSION_MIN = 'TLSv1.2';

export interface DoorOptions {
  readonly server: Server;
  readonly quotas: Quotas;
  readonly unfinished: Unfinished;
  readonly log: Logger;
  /** How long calls may go on over TLS connections of before the files were exchanged. Milliseconds. */
  readonly graceMs: number;
}

/** What a TLS door shows, and whom it takes. PEM. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  /** Of the authorities whose certificates callers must have. */
  readonly ca: string;
}

/**
 * Accepts connections for a gRPC server: finds out who calls, before a byte of the call is read, counts the connection
 * for that caller, and hands it on.
 */
export class Door {
  readonly #options: DoorOptions;
  readonly #users: ConnectionInjector;
  /** Those of the certificates that hold now. */
  #certificates: ConnectionInjector;
  readonly #listeners: NetServer[] = [];
  readonly #tls: TlsServer[] = [];
  /** Callers that were turned away since their last connection was taken: one line of the log is enough for each. */
  readonly #turnedAway = new Set<string>();
  /** By their callers' addresses. */
  readonly #handshakes = new Set<string>();

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#users = injectorOf(options.server);
    this.#certificates = injectorOf(options.server);
  }

  /** A listener for a unix socket, to be bound by the caller. */
  unix(): NetServer {
    const listener = createServer((socket) => this.#take(socket, this.#users, () => userAt(socket)));
    this.#listeners.push(listener);
    return listener;
  }

  /**
   * A listener for TCP, to be bound by the caller: TLS with certificates on both sides.
   * @throws Error when the files do not fit together
   */
  tls(files: TlsFiles): TlsServer {
    const listener = createTlsServer({
      ...files,
      requestCert: true,
      rejectUnauthorized: true,
      ALPNProtocols: ['h2'],
      minVersion: TLS_VERSION_MIN,
      handshakeTimeout: HANDSHAKE_MS,
    });
    listener.on('connection', (socket: Socket) => this.#beginHandshake(socket));
    listener.on('secureConnection', (socket: TLSSocket) => {
      this.#handshakes.delete(peerOf(socket));
      this.#take(socket, this.#certificates, () => certificateAt(socket));
    });
    listener.on('tlsClientError', (error: Error, socket: TLSSocket) => {
      this.#options.log.debug({ problem: messageOf(error) }, 'tls handshake failed');
      socket.destroy();
    });
    this.#listeners.push(listener);
    this.#tls.push(listener);
    return listener;
  }

  /**
   * Takes other files for the connections that come from now on. Those that there are take no new calls: their
   * certificate may be none any more. @throws Error when the files do not fit together
   */
  setTls(files: TlsFiles): void {
    for (const listener of this.#tls) listener.setSecureContext({ ...files, minVersion: TLS_VERSION_MIN });
    const before = this.#certificates;
    this.#certificates = injectorOf(this.#options.server);
    before.drain(this.#options.graceMs);
  }

  /** Takes no new connections; sockets go with their listeners. Resolves when the last connection is closed. */
  async close(): Promise<void> {
    const closing = this.#listeners.map(async (listener) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      // One that never listened says so, and is closed too.
      listener.close(() => resolve());
      await promise;
    });
    await Promise.all(closing);
  }

  #beginHandshake(socket: Socket): void {
    socket.on('error', () => undefined);
    const peer = peerOf(socket);
    if (this.#handshakes.size >= HANDSHAKES_MAX) {
      socket.destroy();
      return;
    }
    this.#handshakes.add(peer);
    socket.once('close', () => this.#handshakes.delete(peer));
  }

  #take(socket: Socket, injector: ConnectionInjector, look: () => Identity): void {
    const { quotas, unfinished, log } = this.#options;
    // A connection that breaks is its caller's loss; http2 hears of it too.
    socket.on('error', () => undefined);
    let identity: Identity;
    try {
      identity = look();
    } catch (error) {
      log.warn({ problem: messageOf(error) }, 'connection of nobody turned away');
      socket.destroy();
      return;
    }
    const caller = describeIdentity(identity);
    try {
      const counted = quotas.enter(caller, 'connections');
      socket.once('close', () => counted[Symbol.dispose]());
    } catch (error) {
      if (!this.#turnedAway.has(caller)) log.warn({ caller, problem: messageOf(error) }, 'connection turned away');
      this.#turnedAway.add(caller);
      socket.destroy();
      return;
    }
    this.#turnedAway.delete(caller);
    tagConnection(socket, identity, (stream) => unfinished.watch(stream, caller));
    injector.injectConnection(socket);
  }
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress ?? ''} ${remotePort ?? 0}`;
}

/** Without credentials: who calls is known before the connection gets here. */
function injectorOf(server: Server): ConnectionInjector {
  return server.createConnectionInjector(ServerCredentials.createInsecure());
}
