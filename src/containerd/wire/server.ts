import type { Server } from '@grpc/grpc-js';
import { ShimError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Gate } from '../../callers/gate.ts';
import { CONTAINERD } from '../../callers/identity.ts';
import { Quotas } from '../../callers/quotas.ts';
import type { Config } from '../../config.ts';
import type { ControllerHandlers } from '../../grpc/generated/containerd/services/sandbox/v1/Controller.ts';
import type { TaskHandlers } from '../../grpc/generated/containerd/task/v3/Task.ts';
import { Recheck, tolerant, unary, type CallContext, type Edge } from '../../grpc/handlers.ts';
import { drainServer, listenOn, newServer } from '../../grpc/server.ts';
import type { Caller } from '../caller.ts';
import type { SandboxController } from '../controller.ts';
import type { TaskService } from '../task.ts';
import { CONTAINERD_ACCESS } from './access.ts';
import { loadContainerdApi } from './schema.ts';

/** Header in which containerd sends the namespace of a call. */
const NAMESPACE_HEADER = 'containerd-namespace';

const DEFAULT_NAMESPACE = 'default';
/** Waits that may be held, for each short call that may be in progress. */
const HELD_FACTOR = 8;
/** A pod's or container's whole specification; containerd itself takes messages of 16 MiB. */
const REQUEST_BYTES_MAX = 8_388_608;

interface Edges {
  readonly short: Edge;
  readonly held: Edge;
}
type CallerOf = (context: CallContext) => Caller;

/** The gRPC server of containerd's services, on a socket of its own. */
export class ContainerdServer {
  readonly #server: Server;
  readonly #config: Config;
  readonly #log: Logger;
  readonly #leaving = new AbortController();

  constructor(
    services: { readonly controller: SandboxController; readonly tasks: TaskService },
    { config, log, gate }: { readonly config: Config; readonly log: Logger; readonly gate: Gate },
  ) {
    this.#config = config;
    this.#log = log;
    this.#server = newServer({ requestBytesMax: REQUEST_BYTES_MAX });
    const edge = (calls: number): Edge => {
      const limits = { connections: 0, streams: 0, calls };
      return {
        ...{ log, gate, quotas: new Quotas(limits, limits) },
        accessOf: (rpc) => CONTAINERD_ACCESS[rpc],
        identityOf: () => CONTAINERD,
        // There are no streams.
        recheck: new Recheck(),
      };
    };
    const edges: Edges = {
      short: edge(config.calls_max),
      // Each running container holds a Wait: those must not use up what short calls may have.
      held: edge(config.calls_max * HELD_FACTOR),
    };
    const caller = (context: CallContext): Caller => ({
      namespace: context.header(NAMESPACE_HEADER) || DEFAULT_NAMESPACE,
      signal: context.signal,
      leaving: this.#leaving.signal,
    });
    const { services: api, task } = loadContainerdApi().containerd;
    this.#server.addService(
      tolerant(api.sandbox.v1.Controller.service),
      controllerHandlers(services.controller, edges, caller),
    );
    this.#server.addService(tolerant(task.v3.Task.service), taskHandlers(services.tasks, edges, caller));
  }

  /** @throws ShimError FAILED_PRECONDITION / SOCKET_IN_USE, SOCKET_DIRECTORY_OPEN */
  async listen(socket: string): Promise<void> {
    await listenOn(this.#server, socket, 'state_dir');
    this.#log.info({ socket }, 'listening for containerd');
  }

  /** Takes no new calls, ends held ones, and lets the others end for as long as the configuration says. */
  async drain(): Promise<void> {
    this.#leaving.abort(new ShimError('UNAVAILABLE', 'the daemon is stopping', { reason: 'DAEMON_STOPPING' }));
    await drainServer(this.#server, this.#config.drain_timeout_ms, this.#log);
  }
}

function controllerHandlers(
  controller: SandboxController,
  { short, held }: Edges,
  caller: CallerOf,
): ControllerHandlers {
  return {
    Create: unary(short, 'Controller.Create', (request, context) => controller.create(request, caller(context))),
    Start: unary(short, 'Controller.Start', (request, context) => controller.start(request, caller(context))),
    Platform: unary(short, 'Controller.Platform', (request, context) =>
      soon(() => controller.platform(request, caller(context))),
    ),
    Stop: unary(short, 'Controller.Stop', (request, context) => controller.stop(request, caller(context))),
    Wait: unary(held, 'Controller.Wait', (request, context) => controller.wait(request, caller(context))),
    Status: unary(short, 'Controller.Status', (request, context) =>
      soon(() => controller.status(request, caller(context))),
    ),
    Shutdown: unary(short, 'Controller.Shutdown', (request, context) => controller.shutdown(request, caller(context))),
    Metrics: unary(short, 'Controller.Metrics', (request, context) => controller.metrics(request, caller(context))),
    Update: unary(short, 'Controller.Update', (request, context) => controller.update(request, caller(context))),
  };
}

function taskHandlers(tasks: TaskService, { short, held }: Edges, caller: CallerOf): TaskHandlers {
  return {
    State: unary(short, 'Task.State', (request, context) => soon(() => tasks.state(request, caller(context)))),
    Create: unary(short, 'Task.Create', (request, context) => tasks.create(request, caller(context))),
    Start: unary(short, 'Task.Start', (request, context) => tasks.start(request, caller(context))),
    Delete: unary(short, 'Task.Delete', (request, context) => tasks.delete(request, caller(context))),
    Pids: unary(short, 'Task.Pids', (request, context) => soon(() => tasks.pids(request, caller(context)))),
    Pause: unary(short, 'Task.Pause', (request, context) => tasks.pause(request, caller(context))),
    Resume: unary(short, 'Task.Resume', (request, context) => tasks.resume(request, caller(context))),
    Checkpoint: unary(short, 'Task.Checkpoint', () => soon(() => tasks.checkpoint())),
    Kill: unary(short, 'Task.Kill', (request, context) => tasks.kill(request, caller(context))),
    Exec: unary(short, 'Task.Exec', (request, context) => tasks.exec(request, caller(context))),
    ResizePty: unary(short, 'Task.ResizePty', (request, context) => tasks.resizePty(request, caller(context))),
    CloseIO: unary(short, 'Task.CloseIO', (request, context) => tasks.closeIo(request, caller(context))),
    Update: unary(short, 'Task.Update', (request, context) => tasks.update(request, caller(context))),
    Wait: unary(held, 'Task.Wait', (request, context) => tasks.wait(request, caller(context))),
    Stats: unary(short, 'Task.Stats', (request, context) => tasks.stats(request, caller(context))),
    Connect: unary(short, 'Task.Connect', (request, context) => soon(() => tasks.connect(request, caller(context)))),
    // The daemon serves many tasks: it is not one of them that ends it.
    Shutdown: unary(short, 'Task.Shutdown', () => Promise.resolve({})),
  };
}

/** What throws at once rejects. */
function soon<T>(act: () => T): Promise<T> {
  return new Promise((resolve) => resolve(act()));
}
