import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Logger } from '../base/log.ts';
import type { Gate } from '../callers/gate.ts';
import type { Config } from '../config.ts';
import { privateDirectory } from '../grpc/socket.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { SandboxController } from './controller.ts';
import { EventForwarder } from './forwarder.ts';
import { KataMonitor } from './kata-monitor.ts';
import { CONTAINERD_DIRECTORY, Pods } from './pods.ts';
import { RelayLink } from './relay-link.ts';
import { TaskService } from './task.ts';
import { EventsClient } from './wire/events-client.ts';
import { ContainerdServer } from './wire/server.ts';

/**
 * What serves containerd (docs/containers.md):
 *
 *     containerd ─▶ relay ─▶ wire/server.ts ─┬─ controller.ts ─▶ pods.ts ─▶ SandboxManager
 *                                            └─ task.ts ─▶ task-create.ts, execs.ts ─▶ live-process.ts ─▶ the guest
 *     containerd ◀─ forwarder.ts ◀─ task-events.ts ◀────────────────────────────────────────┘
 */

/**
 * How long a pod that an earlier daemon was in the middle of making waits to be asked for again: longer than the
 * relay's patience.
 */
const ABANDONED_GRACE_MS = 120_000;

/** What the daemon gives to it. */
export interface ContainerdSurroundings {
  readonly config: Config;
  readonly log: Logger;
  readonly gate: Gate;
  /** Id of the group that may enter the directory of the API's socket, which may be the same directory. */
  readonly group: number | undefined;
}

/** All that serves containerd, put together: there is one of it in a daemon whose `containerd_socket` is set. */
export class ContainerdEndpoint implements AsyncDisposable {
  readonly #cleanup: AsyncDisposableStack;

  private constructor(cleanup: AsyncDisposableStack) {
    this.#cleanup = cleanup;
  }

  /**
   * Takes up what an earlier daemon has left, then listens. containerd's own connection ends at the relay, which is
   * there before and after this daemon.
   * @throws ShimError UNAVAILABLE / RELAY_NOT_STARTED; FAILED_PRECONDITION / SOCKET_IN_USE, SOCKET_DIRECTORY_OPEN
   */
  static async open(
    manager: SandboxManager,
    { config, log, gate, group }: ContainerdSurroundings,
  ): Promise<ContainerdEndpoint> {
    const directory = join(config.state_dir, CONTAINERD_DIRECTORY);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await using undo = new AsyncDisposableStack();
    const client = undo.use(new EventsClient(config.containerd_address));
    const events = undo.use(
      await EventForwarder.open({
        path: join(directory, 'events.json'),
        waitingMax: config.containerd_events_max,
        log,
        send: (event, signal) => client.forward(event, signal),
      }),
    );
    const { containerd_annotations, containerd_memory_min_mib } = config;
    const rules = { containerd_annotations, containerd_memory_min_mib };
    const pods = await Pods.open({ manager, stateDir: config.state_dir, rules, log });
    undo.defer(() => pods.leave());
    // Here, where the option can be named: the relay's own words are in its log.
    await privateDirectory(dirname(config.containerd_socket), 'containerd_socket', group);
    const backend = join(directory, 'daemon.sock');
    const inUse = (): boolean => pods.all().length > 0;
    const place = { socket: config.containerd_socket, backend, directory, inUse, log };
    const served: { tasks?: TaskService } = {};
    const gone = (): (() => void) => served.tasks?.lost() ?? ((): void => served.tasks?.lost()());
    const relay = await RelayLink.open({ ...place, gone });
    undo.defer(() => relay.close(!inUse()));
    const directVolumes = config.containerd_direct_volumes;
    const kata = new KataMonitor({ manager, directVolumes, directory: config.containerd_kata_directory, log });
    undo.defer(() => kata.leave());
    const tasks = new TaskService({
      pods,
      events,
      relay,
      directVolumes,
      kata,
      guestGraceMs: config.agent_timeout_ms,
    });
    served.tasks = tasks;
    undo.defer(() => tasks.release());
    await tasks.restore();
    // The last relay has ended while no daemon ran, and with it what containerd had there.
    if (relay.isNew) tasks.lost()();
    const controller = new SandboxController(pods, {
      taskSocket: relay.socket,
      stopTimeoutMs: config.stop_timeout_ms,
    });
    const server = new ContainerdServer({ controller, tasks }, { config, log, gate });
    undo.defer(() => server.drain());
    await server.listen(backend);
    const leaving = new AbortController();
    const clearing = pods.clearAbandoned(ABANDONED_GRACE_MS, leaving.signal).catch(() => undefined);
    undo.defer(() => {
      leaving.abort();
      return clearing;
    });
    log.info({ socket: relay.socket }, 'serving containerd');
    return new ContainerdEndpoint(undo.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cleanup.disposeAsync();
  }
}
