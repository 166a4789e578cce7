import { once, setMaxListeners } from 'node:events';
import type { Server as NetServer } from 'node:net';
import type { Server, ServiceDefinition, UntypedServiceImplementation } from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { AuditLog } from '../callers/audit.ts';
import { FileWatch } from '../callers/file-watch.ts';
import type { Gate } from '../callers/gate.ts';
import type { PolicyFile } from '../callers/policy-file.ts';
import { Quotas } from '../callers/quotas.ts';
import type { Config } from '../config.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { connectionOf } from '../grpc/connections.ts';
import { Door } from '../grpc/door.ts';
import { Recheck, tolerant, type Edge } from '../grpc/handlers.ts';
import type { Vitals } from './liveness.ts';
import { addReflection } from '../grpc/reflection.ts';
import { loadApi } from '../grpc/schema.ts';
import { readTls, tlsPaths } from '../grpc/tls-files.ts';
import { Unfinished } from '../grpc/unfinished.ts';
import { ACCESS } from './access.ts';
import { operationsHandlers } from './operations-service.ts';
import { budgetsHandlers } from './budgets-service.ts';
import { eventsHandlers, sandboxesHandlers, volumesHandlers } from './services.ts';
import { statsHandlers } from './stats-service.ts';
import { drainServer, listenAt, newServer } from '../grpc/server.ts';

const SERVICES = [
  'qshim.v1.Sandboxes',
  'qshim.v1.Volumes',
  'qshim.v1.Operations',
  'qshim.v1.Stats',
  'qshim.v1.Budgets',
  'qshim.v1.Events',
];
/** What health tells of besides the services: whether policy, TLS files and audit log are as they should be. */
const PARTS = ['qshim.policy', 'qshim.tls', 'qshim.audit'] as const;
/** Streams that a caller may have beyond its calls and watchers: those of health and reflection. */
const FURTHER_STREAMS = 32;

export interface ServerOptions {
  readonly manager: SandboxManager;
  readonly config: Config;
  readonly log: Logger;
  readonly gate: Gate;
  readonly policy: PolicyFile;
  readonly audit: AuditLog;
  /** Id of the group whose members may connect. */
  readonly group: number | undefined;
}

/** The gRPC server on its unix socket, and over TLS where that is configured. */
export class ShimServer {
  readonly #options: ServerOptions;
  readonly #server: Server;
  readonly #health: HealthImplementation;
  readonly #door: Door;
  readonly #unfinished: Unfinished;
  /** Ends the calls that may last for ever, and are not watchers'. */
  readonly #leaving = new AbortController();
  #tls: FileWatch | undefined;
  #telling: NodeJS.Timeout | undefined;
  #status: 'SERVING' | 'NOT_SERVING' = 'NOT_SERVING';

  constructor(options: ServerOptions) {
    this.#options = options;
    const { manager, config, log, gate, policy } = options;
    setMaxListeners(0, this.#leaving.signal);
    const streamsMax = config.caller_calls_max + config.caller_watchers_max + FURTHER_STREAMS;
    this.#server = newServer({
      requestBytesMax: config.request_bytes_max,
      connection: {
        streamsMax,
        idleMs: config.connection_idle_ms,
        keepaliveMs: config.keepalive_ms,
        keepaliveTimeoutMs: config.keepalive_timeout_ms,
      },
    });
    const quotas = quotasOf(config);
    this.#unfinished = new Unfinished({
      messageMs: config.request_timeout_ms,
      bytesMax: config.unfinished_bytes_max,
      streamsMax,
    });
    const graceMs = config.drain_timeout_ms;
    this.#door = new Door({ server: this.#server, quotas, unfinished: this.#unfinished, log, graceMs });
    const recheck = new Recheck();
    policy.onChange(() => recheck.run());
    const edge: Edge = {
      ...{ log, quotas, gate, recheck },
      accessOf: (rpc) => ACCESS[rpc],
      identityOf: (metadata) => connectionOf(metadata).identity,
    };
    const { Sandboxes, Volumes, Operations, Stats, Budgets, Events } = loadApi().qshim.v1;
    this.#add(Sandboxes.service, sandboxesHandlers(manager, edge, this.#leaving.signal));
    this.#add(Volumes.service, volumesHandlers(manager, edge));
    this.#add(Budgets.service, budgetsHandlers(manager, edge));
    this.#add(Operations.service, operationsHandlers(manager, edge));
    this.#add(Stats.service, statsHandlers(manager, edge, this.#leaving.signal));
    this.#add(Events.service, eventsHandlers(manager, edge));
    this.#health = new HealthImplementation({ '': 'NOT_SERVING' });
    this.#health.addToServer(this.#server);
    if (config.reflection === 'on') addReflection(this.#server);
  }

  #add(definition: ServiceDefinition, handlers: object): void {
    // grpc-js checks at run time that every method has its handler; the generated handler types check it before.
    this.#server.addService(tolerant(definition), handlers as UntypedServiceImplementation);
  }

  /**
   * Listens on the configured socket: mode 0600, in a directory of mode 0700, or open to the configured group. A stale
   * socket is replaced. Before that, over TLS.
   * @throws ShimError FAILED_PRECONDITION / SOCKET_IN_USE, SOCKET_DIRECTORY_OPEN, TLS_NOT_USABLE; Error of listen(2)
   */
  async listen(): Promise<void> {
    const { config, log, group } = this.#options;
    const { socket, tls_listen: tls } = config;
    if (tls !== '') await this.#listenTls(tls);
    await listenAt(this.#door.unix(), socket, group);
    this.#setStatus('SERVING');
    this.#tellParts();
    this.#telling = setInterval(() => this.#tellParts(), config.reload_check_ms);
    log.info({ socket, ...(tls === '' ? {} : { tls }) }, 'listening');
  }

  async #listenTls(address: string): Promise<void> {
    const { config, log } = this.#options;
    const listener = this.#door.tls(await readTls(config));
    const at = address.lastIndexOf(':');
    const host = address.slice(0, at).replace(/^\[(.*)\]$/, '$1');
    await listenTcp(listener, host, Number(address.slice(at + 1)));
    this.#tls = new FileWatch({
      ...{ paths: tlsPaths(config), everyMs: config.reload_check_ms, what: 'tls', log },
      load: async () => this.#door.setTls(await readTls(config)),
    });
    // The port may have been left to the system.
    log.info({ address: listener.address() }, 'listening over tls');
  }

  #tellParts(): void {
    const { policy, audit } = this.#options;
    const problems = [policy.problem, this.#tls?.problem, audit.problem];
    PARTS.forEach((part, index) => {
      this.#health.setStatus(part, problems[index] === undefined ? 'SERVING' : 'NOT_SERVING');
    });
  }

  /** What the daemon sees of itself, for grpc.health.v1: SERVING is what it does, not what it was started for. */
  tell({ stuck, unable }: Vitals): void {
    const problem = stuck ?? unable;
    if (this.#leaving.signal.aborted || (problem === undefined) === (this.#status === 'SERVING')) return;
    this.#setStatus(problem === undefined ? 'SERVING' : 'NOT_SERVING');
    if (problem === undefined) this.#options.log.info({}, 'serving again');
    else this.#options.log.error({ problem }, 'not serving');
  }

  #setStatus(status: 'SERVING' | 'NOT_SERVING'): void {
    this.#status = status;
    for (const service of ['', ...SERVICES]) this.#health.setStatus(service, status);
  }

  /** Takes no new calls, lets those in progress end for as long as the configuration says, then cuts them off. */
  async drain(): Promise<void> {
    const { manager, config, log } = this.#options;
    clearInterval(this.#telling);
    this.#setStatus('NOT_SERVING');
    for (const part of PARTS) this.#health.setStatus(part, 'NOT_SERVING');
    const reason = new ShimError('UNAVAILABLE', 'the daemon is stopping', { reason: 'DAEMON_STOPPING' });
    manager.events.close(reason);
    this.#leaving.abort(reason);
    const closed = this.#door.close();
    await this.#tls?.[Symbol.asyncDispose]();
    await drainServer(this.#server, config.drain_timeout_ms, log, closed);
    this.#unfinished[Symbol.dispose]();
  }
}

function quotasOf(config: Config): Quotas {
  return new Quotas(
    { connections: config.connections_max, calls: config.calls_max, streams: config.watchers_max },
    {
      connections: config.caller_connections_max,
      calls: config.caller_calls_max,
      streams: config.caller_watchers_max,
    },
  );
}

/** @throws Error of listen(2), which names the address */
async function listenTcp(listener: NetServer, host: string, port: number): Promise<void> {
  listener.listen(port, host);
  await once(listener, 'listening');
}
