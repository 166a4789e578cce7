import { setMaxListeners } from 'node:events';
import type { Server, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { Budget, tolerant } from '../grpc/handlers.ts';
import { addReflection } from '../grpc/reflection.ts';
import { loadApi } from '../grpc/schema.ts';
import { eventsHandlers, sandboxesHandlers, volumesHandlers } from './services.ts';
import { drainServer, listenOn, newServer } from '../grpc/server.ts';

const SERVICES = ['qshim.v1.Sandboxes', 'qshim.v1.Volumes', 'qshim.v1.Events'];

/** The gRPC server on its unix socket. */
export class ShimServer {
  readonly #server: Server;
  readonly #health: HealthImplementation;
  readonly #config: Config;
  readonly #log: Logger;
  readonly #manager: SandboxManager;
  /** Ends the calls that may last for ever, and are not watchers'. */
  readonly #leaving = new AbortController();

  constructor(manager: SandboxManager, config: Config, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.#manager = manager;
    setMaxListeners(0, this.#leaving.signal);
    this.#server = newServer(config.request_bytes_max);
    const edge = {
      log,
      calls: new Budget('calls', config.calls_max),
      streams: new Budget('streams', config.watchers_max),
    };
    const { Sandboxes, Volumes, Events } = loadApi().qshim.v1;
    this.#add(Sandboxes.service, sandboxesHandlers(manager, edge, this.#leaving.signal));
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
    await listenOn(this.#server, socket, 'socket');
    for (const service of ['', ...SERVICES]) this.#health.setStatus(service, 'SERVING');
    this.#log.info({ socket }, 'listening');
  }

  /** Takes no new calls, lets those in progress end for as long as the configuration says, then cuts them off. */
  async drain(): Promise<void> {
    for (const service of ['', ...SERVICES]) this.#health.setStatus(service, 'NOT_SERVING');
    const reason = new ShimError('UNAVAILABLE', 'the daemon is stopping', { reason: 'DAEMON_STOPPING' });
    this.#manager.events.close(reason);
    this.#leaving.abort(reason);
    await drainServer(this.#server, this.#config.drain_timeout_ms, this.#log);
  }
}
