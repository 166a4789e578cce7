import { chmod } from 'node:fs/promises';
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { waitFor } from '../base/deadline.ts';
import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { Budget, tolerant } from '../grpc/handlers.ts';
import { addReflection } from '../grpc/reflection.ts';
import { loadApi } from '../grpc/schema.ts';
import { eventsHandlers, sandboxesHandlers, volumesHandlers } from './services.ts';
import { bindSocket } from '../grpc/socket.ts';

const SERVICES = ['qshim.v1.Sandboxes', 'qshim.v1.Volumes', 'qshim.v1.Events'];

/** The gRPC server on its unix socket. */
export class ShimServer {
  readonly #server: Server;
  readonly #health: HealthImplementation;
  readonly #config: Config;
  readonly #log: Logger;
  readonly #manager: SandboxManager;

  constructor(manager: SandboxManager, config: Config, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.#manager = manager;
    const bytesMax = config.request_bytes_max;
    // Answers may be longer than requests: Exec returns two outputs.
    this.#server = new Server({
      'grpc.max_receive_message_length': bytesMax,
      'grpc.max_send_message_length': -1,
    });
    const edge = {
      log,
      calls: new Budget('calls', config.calls_max),
      streams: new Budget('streams', config.watchers_max),
    };
    const { Sandboxes, Volumes, Events } = loadApi().qshim.v1;
    this.#add(Sandboxes.service, sandboxesHandlers(manager, edge));
    this.#add(Volumes.service, volumesHandlers(manager, edge));
    this.#add(Events.service, eventsHandlers(manager, edge));
    this.#health = new HealthImplementation({ '': 'NOT_SERVING' });
    this.#health.addToServer(this.#server);
    addReflection(this.#server, 'api');
  }

  #add(definition: ServiceDefinition, handlers: object): void {
    // grpc-js checks at run time that every method has its handler; the generated handler types check it before.
    this.#server.addService(tolerant(definition), handlers as UntypedServiceImplementation);
  }

  /**
   * Listens on the configured socket: mode 0600, in a directory of mode 0700. A stale socket is replaced.
   * @throws ShimError FAILED_PRECONDITION / SOCKET_IN_USE, SOCKET_DIRECTORY_OPEN
   */
  async listen(): Promise<void> {
    const { socket } = this.#config;
    await bindSocket(socket, async () => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      // The umask (077, set by main.ts) gives the socket its mode from its first moment; chmod says so again.
      this.#server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) => {
        if (error === null) resolve();
        else reject(error);
      });
      await promise;
    });
    await chmod(socket, 0o600);
    for (const service of ['', ...SERVICES]) this.#health.setStatus(service, 'SERVING');
    this.#log.info({ socket }, 'listening');
  }

  /** Takes no new calls, lets those in progress end for as long as the configuration says, then cuts them off. */
  async drain(): Promise<void> {
    for (const service of ['', ...SERVICES]) this.#health.setStatus(service, 'NOT_SERVING');
    this.#manager.events.close(new ShimError('UNAVAILABLE', 'the daemon is stopping', { reason: 'DAEMON_STOPPING' }));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.tryShutdown(() => resolve());
    try {
      await waitFor(promise, { milliseconds: this.#config.drain_timeout_ms });
    } catch {
      this.#log.warn({ milliseconds: this.#config.drain_timeout_ms }, 'calls cut off at the end of the drain');
      this.#server.forceShutdown();
    }
  }
}
