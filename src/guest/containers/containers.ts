import { waitFor } from '../../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../../base/errors.ts';
import { wasNeverSent } from '../channel-errors.ts';
import { makeBundle } from './bundle.ts';
import type { AnnouncedExit } from './exits.ts';
import { GuestSide } from './guest-side.ts';
import type { ContainerHost } from './host.ts';
import type { OciResources } from './oci.ts';
import { persist } from './persist.ts';
import type { Ports } from './port.ts';
import type { ContainerProcess, ProcessActions } from './process.ts';
import { ProcessTable } from './process-table.ts';
import { checkContainerId, keyOf, type ContainersRecord } from './records.ts';
import { rejoin } from './rejoin.ts';
import { Removal } from './removal.ts';
import { GuestRuntime, responds, type ExitRecord } from './runtime.ts';
import { translateLimits, translateProcess } from './translate.ts';
import type {
  ContainerSpec,
  ContainerStats,
  ExecSpec,
  GuestContainers,
  GuestProcess,
  ProcessExit,
  FileSystemFigures,
  FsGroup,
} from './types.ts';

/**
 * Containers in one guest:
 *
 *     config.json ─▶ oci.ts, translate.ts, plan.ts ─▶ bundle.ts ─▶ runtime.ts ─ scripts ─▶ crun, conmon
 *     containers.ts ─▶ process-table.ts, process.ts ─▶ ports (sandbox/ports.ts) ─▶ streams.ts: bytes in and out
 *     exits.ts ◀─ the events port ◀─ the guest         records.ts ─▶ the journal ─▶ rejoin.ts: the next daemon
 */

/** Of a process that ended before it ran, and of one that could not be run: as shells have it. */
const NEVER_RAN_CODE = 137;
const NOT_STARTED_CODE = 127;
const LOST_CODE = 255;

/**
 * All containers of one sandbox. This class owns every change of a process; what it does in the guest is runtime.ts,
 * what it plugs is sandbox/ports.ts.
 *
 * INVARIANT: a process is in the journal before anything of it is in QEMU or in the guest, and until all of it is gone.
 * A daemon that comes back undoes what was being made, finishes what was being deleted, and asks the guest about the
 * rest (rejoin.ts).
 */
export class Containers implements GuestContainers, ProcessActions {
  readonly runtime: GuestRuntime;
  readonly #host: ContainerHost;
  readonly #processes: ProcessTable;
  readonly #removal: Removal;
  readonly #side: GuestSide;
  /** Pending while an adopted guest has not been asked yet. */
  #joined: Promise<void> = Promise.resolve();
  #vmGone = false;

  constructor(host: ContainerHost) {
    this.#host = host;
    this.runtime = new GuestRuntime(host.agent, host.config.container_timeout_ms);
    this.#processes = new ProcessTable(host.id, host.config.container_processes_max, this);
    this.#removal = new Removal(host, this.runtime, this.#processes);
    this.#side = new GuestSide({
      runtime: this.runtime,
      ports: host.ports,
      commit: () => host.commit(),
      heard: (exit) => {
        this.#heard(exit);
      },
    });
  }

  get ports(): Ports {
    return this.#host.ports;
  }

  // ---- what callers ask

  async create(spec: ContainerSpec): Promise<GuestProcess> {
    checkContainerId('id', spec.id);
    await this.#ready();
    const process = this.#processes.register({
      containerId: spec.id,
      execId: undefined,
      streams: spec.streams,
      process: undefined,
    });
    try {
      const hook = spec.streams.terminal ? ['/run/qshim/container', 'hook', spec.id] : undefined;
      const making = [makeBundle(this.runtime, spec, hook), this.install(), this.#openPorts(process)] as const;
      // All of them end before the first failure is told: ports that came up behind the undo would be nobody's.
      await Promise.allSettled(making);
      const [bundle] = await Promise.all(making);
      const { containerId, token } = process;
      process.pid = await this.#side.withPorts(() => this.runtime.create(containerId, token, process.ports, bundle));
      if (process.phase === 'creating') process.phase = 'created';
      await this.#host.commit();
      this.#host.log.info({ containerId, pid: process.pid }, 'container created');
      return process;
    } catch (error) {
      await this.#removal.undo(process);
      throw error;
    }
  }

  async exec(containerId: string, spec: ExecSpec): Promise<GuestProcess> {
    checkContainerId('exec_id', spec.id);
    await this.#ready();
    const container = this.#processes.container(containerId);
    if (container.state !== 'running') container.refuse('only a running container can run further processes');
    const process = this.#processes.register({
      containerId,
      execId: spec.id,
      streams: spec.streams,
      process: translateProcess(spec.process, spec.streams.terminal),
    });
    try {
      await this.#openPorts(process);
      process.phase = 'created';
      await this.#host.commit();
      return process;
    } catch (error) {
      await this.#removal.undo(process);
      throw error;
    }
  }

  find(containerId: string, execId?: string): GuestProcess | undefined {
    const process = this.#processes.get(keyOf(containerId, execId));
    return process?.phase === 'creating' ? undefined : process;
  }

  async discard(containerId: string, execId?: string): Promise<void> {
    const process = this.#processes.get(keyOf(containerId, execId));
    if (process === undefined) return;
    if (process.phase !== 'creating') {
      await process.delete();
      return;
    }
    await this.#ready();
    await this.#removal.delete(process, true);
  }

  list(): readonly GuestProcess[] {
    return this.all().filter((process) => process.phase !== 'creating');
  }

  async giveToGroup(mountPoint: string, group: FsGroup): Promise<void> {
    await this.#ready();
    await this.runtime.giveToGroup(mountPoint, group);
  }

  async fileSystem(mountPoint: string): Promise<FileSystemFigures> {
    return await this.runtime.fileSystem(mountPoint);
  }

  responds(): Promise<boolean> {
    return responds(this.#host.agent);
  }

  async pids(containerId: string): Promise<readonly number[]> {
    await this.#ready();
    return await this.runtime.pids(this.#processes.container(containerId).containerId);
  }

  async stats(containerId: string): Promise<ContainerStats> {
    await this.#ready();
    return await this.runtime.stats(this.#processes.container(containerId).containerId);
  }

  async pause(containerId: string): Promise<void> {
    await this.#freeze(containerId, 'pause');
  }

  async resume(containerId: string): Promise<void> {
    await this.#freeze(containerId, 'resume');
  }

  async update(containerId: string, resources: OciResources): Promise<void> {
    const limits = translateLimits(resources);
    await this.#ready();
    await this.runtime.update(this.#processes.container(containerId).containerId, limits);
  }

  // ---- what a process asks (ProcessActions)

  async start(process: ContainerProcess): Promise<number> {
    if (process.starting === undefined && process.state !== 'created') process.refuse('it cannot be started');
    process.starting ??= this.#start(process).finally(() => {
      process.starting = undefined;
    });
    return await process.starting;
  }

  async kill(process: ContainerProcess, signal: number, all: boolean): Promise<void> {
    await this.#ready();
    await process.starting?.catch(() => undefined);
    if (process.exit !== undefined && !all) return;
    if (process.execId !== undefined && process.phase === 'created') process.refuse('it does not run yet');
    await this.runtime.kill(process.key, signal, all && process.execId === undefined);
  }

  async resize(process: ContainerProcess, columns: number, rows: number): Promise<void> {
    if (!process.terminal) process.refuse('it has no terminal');
    process.size = { columns, rows };
    await this.#ready();
    await process.starting?.catch(() => undefined);
    if (process.state === 'running') await this.runtime.resize(process.key, columns, rows);
  }

  delete(process: ContainerProcess): Promise<ProcessExit> {
    process.deleting ??= this.#delete(process).catch((error: unknown) => {
      process.deleting = undefined;
      throw error;
    });
    return process.deleting;
  }

  // ---- what the sandbox tells

  record(): ContainersRecord {
    return { eventsPort: this.#side.eventsPort, processes: this.all().map((process) => process.record()) };
  }

  restore(record: ContainersRecord): void {
    this.#side.eventsPort = record.eventsPort;
    for (const one of record.processes) this.#processes.restore(one);
  }

  /** True when there is something that the guest has to be asked about after an adoption. */
  get hasRecords(): boolean {
    return this.#side.eventsPort !== 0 || this.#processes.size > 0;
  }

  /** Takes up again what an earlier daemon left, once the guest can be asked; operations wait for it. */
  async rejoin(guestReady: Promise<void>): Promise<void> {
    this.#joined = guestReady.then(() => this.#rejoin());
    // Operations wait for it and hear of its failure; the log does, too.
    this.#joined.catch(() => undefined);
    await this.#joined;
  }

  /** The guest was reset, or the VM is gone: no process has survived it. */
  allGone(vmGone: boolean): void {
    this.#vmGone ||= vmGone;
    this.#side.forget();
    for (const process of this.all()) this.settleLost(process, true);
  }

  /** Closes the host's side and leaves everything running. */
  release(): void {
    this.#side[Symbol.dispose]();
    for (const process of this.all()) process.release();
  }

  // ---- for rejoin.ts

  all(): readonly ContainerProcess[] {
    return this.#processes.all();
  }

  install(): Promise<void> {
    return this.#side.install();
  }

  /** @param ageMs how long ago it ended */
  settle(process: ContainerProcess, record: ExitRecord, ageMs: number): void {
    const { code, oomKilled } = record;
    process.frozen = false;
    process.settle({ code, oomKilled, atMs: Date.now() - ageMs, vmGone: false });
    this.#host.log.info({ containerId: process.containerId, execId: process.execId, code }, 'process ended');
    this.#host.commitSoon();
  }

  /** Nobody can say any more how it ended. */
  settleLost(process: ContainerProcess, vmGone: boolean): void {
    process.settle({ code: LOST_CODE, oomKilled: false, atMs: Date.now(), vmGone });
  }

  clearAway(process: ContainerProcess, force: boolean): Promise<void> {
    return this.#removal.clearAway(process, force);
  }

  portsInUse(): ReadonlySet<number> {
    const used = this.all().flatMap(({ ports }) => Object.values(ports) as number[]);
    return new Set([...used, this.#side.eventsPort]);
  }

  // ---- how

  /** The guest may be too busy to answer just now: asks until it does. */
  async #rejoin(): Promise<void> {
    await persist(
      this.#host.gone,
      () => rejoin(this, this.#host),
      (error) => {
        this.#host.log.warn({ problem: messageOf(error) }, 'containers not taken up again, trying again');
      },
    );
  }

  async #ready(): Promise<void> {
    const { gone, config, id } = this.#host;
    gone.throwIfAborted();
    await waitFor(this.#joined, { milliseconds: config.container_timeout_ms, signal: gone });
    if (this.#host.agentReady) return;
    throw new ShimError('FAILED_PRECONDITION', `the guest agent of sandbox ${id} is not ready`, {
      reason: 'GUEST_AGENT_NOT_READY',
      metadata: { sandboxId: id },
    });
  }

  #heard({ key, token, record }: AnnouncedExit): void {
    const process = this.#processes.get(key);
    if (process === undefined || process.token !== token) return;
    this.settle(process, record, 0);
  }

  async #openPorts(process: ContainerProcess): Promise<void> {
    process.usePorts(await this.#side.openPorts(process.streams));
  }

  async #start(process: ContainerProcess): Promise<number> {
    await this.#ready();
    // By a daemon that did not live to say so: the guest has been asked by now.
    if (process.ran) return process.pid;
    if (process.phase !== 'created') process.refuse('it cannot be started');
    const { key, token, ports, size } = process;
    const before = process.asked;
    process.asked = true;
    try {
      if (process.execId === undefined) await this.runtime.start(key);
      else
        process.pid = await this.#side.withPorts(() =>
          this.runtime.startExec(key, token, ports, process.execJson(), process.oomScoreAdj),
        );
    } catch (error) {
      if (wasNeverSent(error)) process.asked = before;
      // Seen, or as good as seen: crun refused, and nothing of it runs that could tell of an end.
      if (isShimError(error, 'FAILED_PRECONDITION')) await this.#settleNotStarted(process);
      throw error;
    }
    process.ran = true;
    process.execProcess = undefined;
    // The end may have been heard of before the start's answer.
    if (process.exit === undefined) process.phase = 'running';
    await this.#host.commit();
    if (size !== undefined) await this.runtime.resize(key, size.columns, size.rows);
    return process.pid;
  }

  async #settleNotStarted(process: ContainerProcess): Promise<void> {
    await this.runtime.kill(process.key, 9, process.execId === undefined).catch((error: unknown) => {
      this.#host.log.warn(
        { process: process.key, problem: messageOf(error) },
        'process not ended after a failed start',
      );
    });
    process.settle({ code: NOT_STARTED_CODE, oomKilled: false, atMs: Date.now(), vmGone: false });
    this.#host.commitSoon();
  }

  async #freeze(containerId: string, how: 'pause' | 'resume'): Promise<void> {
    await this.#ready();
    const container = this.#processes.container(containerId);
    const wanted = how === 'pause' ? 'running' : 'paused';
    if (container.state !== wanted) container.refuse(`${how} needs a container that is ${wanted}`);
    await this.runtime.freeze(containerId, how);
    if (container.exit === undefined) container.frozen = how === 'pause';
    this.#host.commitSoon();
  }

  async #delete(process: ContainerProcess): Promise<ProcessExit> {
    if (this.#vmGone) {
      this.#processes.remove(process);
      return process.exit ?? { code: LOST_CODE, oomKilled: false, atMs: Date.now(), vmGone: true };
    }
    await this.#ready();
    await process.starting?.catch(() => undefined);
    if (process.phase === 'running') process.refuse('it has to end before it can be deleted');
    const force = process.exit === undefined;
    if (process.execId === undefined) await this.#deleteExecs(process);
    process.phase = 'deleting';
    await this.#host.commit();
    await this.#removal.delete(process, force);
    process.settle({ code: NEVER_RAN_CODE, oomKilled: false, atMs: Date.now(), vmGone: false });
    return await process.exited;
  }

  async #deleteExecs(container: ContainerProcess): Promise<void> {
    const execs = this.all().filter(
      ({ containerId, execId }) => containerId === container.containerId && execId !== undefined,
    );
    // Their container has ended, and they with it; their own news may still be on its way.
    for (const exec of execs) {
      if (exec.phase === 'running') this.settleLost(exec, false);
      await this.delete(exec);
    }
  }
}
