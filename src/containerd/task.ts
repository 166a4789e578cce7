import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { waitFor } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { parseResources, type OciConfig } from '../guest/containers/oci.ts';
import type { ConnectResponse } from '../grpc/generated/containerd/task/v3/ConnectResponse.ts';
import type { CreateTaskRequest__Output } from '../grpc/generated/containerd/task/v3/CreateTaskRequest.ts';
import type { DeleteResponse } from '../grpc/generated/containerd/task/v3/DeleteResponse.ts';
import type { ExecProcessRequest__Output } from '../grpc/generated/containerd/task/v3/ExecProcessRequest.ts';
import type { KillRequest__Output } from '../grpc/generated/containerd/task/v3/KillRequest.ts';
import type { PidsResponse } from '../grpc/generated/containerd/task/v3/PidsResponse.ts';
import type { ResizePtyRequest__Output } from '../grpc/generated/containerd/task/v3/ResizePtyRequest.ts';
import type { StateResponse } from '../grpc/generated/containerd/task/v3/StateResponse.ts';
import type { StatsResponse } from '../grpc/generated/containerd/task/v3/StatsResponse.ts';
import type { UpdateTaskRequest__Output } from '../grpc/generated/containerd/task/v3/UpdateTaskRequest.ts';
import type { WaitResponse } from '../grpc/generated/containerd/task/v3/WaitResponse.ts';
import { untilGone, type Caller } from './caller.ts';
import { SHIM_VERSION } from './controller.ts';
import { Execs } from './execs.ts';
import type { EventForwarder } from './forwarder.ts';
import { checkNamed, type Named } from './ids.ts';
import type { KataMonitor } from './kata-monitor.ts';
import { killProcess } from './kill.ts';
import { processKey, type LiveProcess } from './live-process.ts';
import { LiveProcesses } from './live-processes.ts';
import type { Pod } from './pod.ts';
import { forget, type ContainerRecord } from './pod-record.ts';
import type { Pods } from './pods.ts';
import { removeLost } from './lost.ts';
import { ProcessIo } from './process-io.ts';
import type { RelayLink } from './relay-link.ts';
import { cgroupMetrics } from './stats.ts';
import { createInGuest, readConfig } from './task-create.ts';
import { taskEvent } from './task-events.ts';
import { jsonOf, metricsAny, timestampOf } from './wire/messages.ts';

interface ProcessRequest {
  readonly id: string;
  readonly execId: string;
}
interface TaskRequest {
  readonly id: string;
}

interface TaskOptions {
  readonly pods: Pods;
  readonly events: Pick<EventForwarder, 'publish'>;
  readonly relay: Pick<RelayLink, 'hold' | 'release'>;
  readonly directVolumes: string;
  readonly kata: Pick<KataMonitor, 'follow'>;
  /** How long a guest may take for a signal before it is asked for a sign of life. */
  readonly guestGraceMs: number;
}

/**
 * `containerd.task.v3.Task`, free of the transport. A process id that containerd is told is always that of the pod's
 * QEMU: a number of the guest's would name a stranger on this host.
 */
export class TaskService {
  readonly #options: TaskOptions;
  readonly #live: LiveProcesses;
  readonly #execs: Execs;
  /** Creates in progress; repeats join them, and Delete waits for them. */
  readonly #creating = new Map<string, Promise<Pod>>();
  readonly #leaving = new AbortController();
  /** Deletes in progress; repeats join them. */
  readonly #deleting = new Map<string, Promise<DeleteResponse>>();

  constructor(options: TaskOptions) {
    this.#options = options;
    this.#live = new LiveProcesses(options);
    this.#execs = new Execs({ ...options, live: this.#live });
  }

  /** Takes up the processes that an earlier daemon served: streams are joined again, ends are told. */
  async restore(): Promise<void> {
    const undone: Promise<void>[] = [];
    for (const pod of this.#options.pods.all()) {
      for (const container of [...pod.record.containers]) {
        // The daemon ended in the middle of Create, or of Exec: nobody was told of it.
        if (!container.ready) {
          undone.push(this.#undoCreate(pod, container));
          continue;
        }
        await this.#live.revive(pod, container, undefined);
        for (const exec of [...container.execs]) {
          if (exec.ready) await this.#live.revive(pod, container, exec);
          else undone.push(this.#execs.undo(pod, container, exec));
        }
      }
    }
    await Promise.all(undone);
    for (const pod of this.#options.pods.all()) await this.#options.kata.follow(pod);
  }

  async create(request: CreateTaskRequest__Output, caller: Caller): Promise<{ pid: number }> {
    const name = checkNamed({ namespace: caller.namespace, id: request.id });
    const key = createKey(name);
    const joined = this.#creating.get(key);
    const made = this.#options.pods.containers(name).find(({ container }) => container.ready);
    if (joined === undefined && made !== undefined) return { pid: made.pod.pid };
    const creating = joined ?? this.#create(request, name, caller).finally(() => this.#creating.delete(key));
    this.#creating.set(key, creating);
    creating.catch(() => undefined); // The caller may go before the end; containerd then deletes what has come of it.
    const pod = await waitFor(creating, { signal: caller.signal });
    return { pid: pod.pid };
  }

  /** What a Create that failed could not undo then is undone now. @throws ShimError UNAVAILABLE / CREATE_NOT_UNDONE */
  async #clearUnready({ namespace, id }: Named): Promise<void> {
    for (const { pod, container } of this.#options.pods.containers({ namespace, id })) {
      if (container.ready) continue;
      await this.#undoCreate(pod, container);
      if (pod.destroyed || !pod.record.containers.includes(container)) continue;
      throw new ShimError('UNAVAILABLE', `what a failed create of container ${id} has left is not removed yet`, {
        reason: 'CREATE_NOT_UNDONE',
        metadata: { namespace, id },
      });
    }
  }

  async #create(request: CreateTaskRequest__Output, name: Named, caller: Caller): Promise<Pod> {
    await this.#clearUnready(name);
    const { id, bundle, rootfs, stdin, stdout, stderr, terminal } = request;
    const config = await readConfig(bundle);
    const pod = await this.#podFor(name, bundle, config, caller);
    const container: ContainerRecord = {
      ...{ id, bundle, stdin, stdout, stderr, terminal, stdinClosed: false, started: false },
      ...{ volumes: [], ready: false, execs: [] },
    };
    pod.record.containers.push(container);
    const { events, directVolumes, relay } = this.#options;
    let io: ProcessIo | undefined;
    try {
      // First of all: the relay lets go of what is held for a record that never became ready.
      await pod.commit();
      io = ProcessIo.open(container, pod.log);
      await relay.hold(processKey(pod, id, undefined), io.fifos);
      const guest = await createInGuest({ pod, container, config, rootfs, directVolumes });
      container.ready = true;
      await pod.commit();
      this.#live.add(pod, container, undefined, guest, io);
      await this.#options.kata.follow(pod);
    } catch (error) {
      await io?.close();
      await this.#undoCreate(pod, container);
      throw error;
    }
    await events.publish(
      taskEvent(caller.namespace, 'TaskCreate', {
        containerId: id,
        bundle,
        rootfs,
        io: { stdin, stdout, stderr, terminal },
        pid: pod.pid,
      }),
    );
    return pod;
  }

  /** The pod that containerd means: the bundle's sandbox; without one (`ctr run`) a pod of the container's own. */
  async #podFor(name: Named, bundle: string, config: OciConfig, caller: Caller): Promise<Pod> {
    const { pods } = this.#options;
    const { namespace } = name;
    const annotations = config.annotations ?? {};
    const sandboxId = (await sandboxFile(bundle)) ?? annotations['io.kubernetes.cri.sandbox-id'];
    if (sandboxId !== undefined) return pods.get({ namespace, id: sandboxId });
    const labels = { 'containerd.namespace': namespace };
    const pod = await pods.create(name, { implicit: true, annotations, labels });
    // The pod is the container's: it is not taken away when the caller goes, Delete comes for it.
    await pods.start(pod, { signal: new AbortController().signal, leaving: caller.leaving });
    return pod;
  }

  async #undoCreate(pod: Pod, container: ContainerRecord): Promise<void> {
    // Also one that was made and could not be recorded: until nothing is left of it, it is not answered as made.
    container.ready = false;
    await this.#options.relay.release(processKey(pod, container.id, undefined));
    try {
      if (pod.record.implicit) {
        await this.#options.pods.destroy(pod);
        return;
      }
      // Also one that the guest was in the middle of making: its root file system is in use until it is gone.
      if (pod.snapshot !== undefined) await pod.containers.discard(container.id);
      await this.#releaseVolumes(pod, container);
      forget(pod.record.containers, container);
      await pod.commit();
    } catch (error) {
      // Delete, or the pod's end, tries again: the record still names what is attached.
      pod.log.warn({ containerId: container.id, problem: messageOf(error) }, 'failed create not undone');
    }
  }

  async #releaseVolumes(pod: Pod, container: ContainerRecord): Promise<void> {
    const results = await Promise.allSettled(container.volumes.map((volumeId) => pod.release(container.id, volumeId)));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    container.volumes = [];
    await this.#options.kata.follow(pod);
  }

  async start(request: ProcessRequest, caller: Caller): Promise<{ pid: number }> {
    const live = this.#process(request, caller);
    await live.start();
    return { pid: live.pod.pid };
  }

  state(request: ProcessRequest, caller: Caller): StateResponse {
    const live = this.#process(request, caller);
    const { container, record, pod, status } = live;
    const { stdin, stdout, stderr, terminal, exit } = record;
    return {
      ...{ id: container.id, execId: request.execId, bundle: container.bundle, pid: pod.pid, status },
      ...{ stdin, stdout, stderr, terminal },
      ...(exit === undefined ? {} : { exitStatus: exit.code, exitedAt: timestampOf(exit.atMs) }),
    };
  }

  /** Ends with its caller, or with the daemon; what it has begun goes on, and a repeat joins it. */
  async delete(request: ProcessRequest, caller: Caller): Promise<DeleteResponse> {
    const name = { namespace: caller.namespace, id: request.id };
    const creating = this.#creating.get(createKey(name))?.catch(() => undefined);
    await untilGone(creating ?? Promise.resolve(undefined), caller);
    if (request.execId === '') await this.#clearUnready(name);
    else await untilGone(this.#execs.settled(this.#container(request, caller), request.execId), caller);
    const live = this.#process(request, caller);
    const { key } = live;
    const deleting = this.#deleting.get(key) ?? this.#delete(live).finally(() => this.#deleting.delete(key));
    this.#deleting.set(key, deleting);
    return await untilGone(deleting, caller);
  }

  async #delete(live: LiveProcess): Promise<DeleteResponse> {
    const { pod, container, exec } = live;
    const { pid } = pod;
    const exit = await live.remove();
    if (exec === undefined) {
      for (const { id } of container.execs) {
        const inside = this.#live.find(pod, container.id, id);
        if (inside !== undefined) this.#live.part(inside);
      }
      await this.#releaseVolumes(pod, container);
      forget(pod.record.containers, container);
    } else forget(container.execs, exec);
    this.#live.remove(live);
    const exited = { pid, exitStatus: exit.code, exitedAt: timestampOf(exit.atMs) };
    await this.#options.events.publish(
      taskEvent(pod.record.namespace, 'TaskDelete', { containerId: container.id, id: exec?.id ?? '', ...exited }),
    );
    if (exec === undefined && pod.record.implicit) await this.#options.pods.destroy(pod);
    else await pod.commit();
    return exited;
  }

  pids(request: TaskRequest, caller: Caller): PidsResponse {
    const { pod } = this.#container(request, caller);
    return { processes: [{ pid: pod.pid }] };
  }

  async kill({ id, execId, signal, all }: KillRequest__Output, caller: Caller): Promise<object> {
    const live = this.#process({ id, execId }, caller);
    const { guestGraceMs: graceMs } = this.#options;
    const limits = { graceMs, leaving: this.#leaving.signal };
    if (live.record.exit === undefined) await killProcess(live, { signal, all: all && execId === '' }, limits);
    return {};
  }

  async exec(request: ExecProcessRequest__Output, caller: Caller): Promise<object> {
    checkNamed({ namespace: caller.namespace, id: request.execId });
    await this.#execs.make(request, this.#container(request, caller), caller);
    return {};
  }

  async wait(request: ProcessRequest, caller: Caller): Promise<WaitResponse> {
    const exit = await untilGone(this.#process(request, caller).ended, caller);
    return { exitStatus: exit.code, exitedAt: timestampOf(exit.atMs) };
  }

  async closeIo(request: ProcessRequest & { readonly stdin: boolean }, caller: Caller): Promise<object> {
    if (request.stdin) await this.#process(request, caller).closeStdin();
    return {};
  }

  async resizePty(request: ResizePtyRequest__Output, caller: Caller): Promise<object> {
    const live = this.#process(request, caller);
    if (live.record.exit === undefined) await live.inGuest().resize({ columns: request.width, rows: request.height });
    return {};
  }

  async pause(request: TaskRequest, caller: Caller): Promise<object> {
    const { pod, container } = this.#container(request, caller);
    await pod.containers.pause(container.id);
    await this.#options.events.publish(taskEvent(caller.namespace, 'TaskPaused', { containerId: container.id }));
    return {};
  }

  async resume(request: TaskRequest, caller: Caller): Promise<object> {
    const { pod, container } = this.#container(request, caller);
    await pod.containers.resume(container.id);
    await this.#options.events.publish(taskEvent(caller.namespace, 'TaskResumed', { containerId: container.id }));
    return {};
  }

  async update(request: UpdateTaskRequest__Output, caller: Caller): Promise<object> {
    const { pod, container } = this.#container(request, caller);
    await pod.containers.update(container.id, parseResources(jsonOf('resources', request.resources)));
    return {};
  }

  async stats(request: TaskRequest, caller: Caller): Promise<StatsResponse> {
    const { pod, container } = this.#container(request, caller);
    return { stats: metricsAny(cgroupMetrics(await pod.containers.stats(container.id))) };
  }

  connect(request: TaskRequest, caller: Caller): ConnectResponse {
    const { pod } = this.#container(request, caller);
    return { shimPid: process.pid, taskPid: pod.pid, version: String(SHIM_VERSION) };
  }

  checkpoint(): never {
    throw new ShimError('UNIMPLEMENTED', 'Checkpoint: a container in a VM cannot be checkpointed by itself', {
      reason: 'CHECKPOINT_NOT_SUPPORTED',
    });
  }

  /**
   * Takes note of every container that there is. Call what it gives once it is known that the relay which had them has
   * ended: they are ended and removed.
   */
  lost(): () => void {
    const there = this.#options.pods
      .all()
      .flatMap((pod) => pod.record.containers.map((container) => ({ pod, container })));
    return () => {
      for (const each of there) {
        each.pod.log.error({ containerId: each.container.id }, 'container that containerd has lost is taken away');
        removeLost(this, each, this.#leaving.signal).catch(() => undefined); // The daemon ends; the log has the rest.
      }
    };
  }

  /** Lets go of all streams: the daemon ends, the containers go on. */
  async release(): Promise<void> {
    this.#leaving.abort();
    await this.#live.release();
  }

  /** A container's init. @throws as #process */
  #container({ id }: TaskRequest, caller: Caller): LiveProcess {
    return this.#process({ id, execId: '' }, caller);
  }

  /** @throws ShimError INVALID_ARGUMENT / INVALID_ID; NOT_FOUND / CONTAINER_NOT_FOUND */
  #process({ id, execId }: ProcessRequest, { namespace }: Caller): LiveProcess {
    const pod = this.#options.pods.ofContainer(checkNamed({ namespace, id }));
    const live = this.#live.find(pod, id, execId === '' ? undefined : execId);
    if (live !== undefined) return live;
    throw new ShimError('NOT_FOUND', `container ${id} has no process ${execId === '' ? 'yet' : execId}`, {
      reason: 'CONTAINER_NOT_FOUND',
      metadata: { namespace, id, execId },
    });
  }
}

function createKey({ namespace, id }: Named): string {
  return `${namespace}/${id}`;
}

/** containerd 2 writes the sandbox that a task belongs to into its bundle. */
async function sandboxFile(bundle: string): Promise<string | undefined> {
  try {
    return (await readFile(join(bundle, 'sandbox'), 'utf8')).trim();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
