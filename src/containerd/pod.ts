import { waitFor } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { RequestedSpec } from '../volume/spec.ts';
import type { GuestContainers } from '../guest/containers/types.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import type { Caller } from './caller.ts';
import type { SandboxSnapshot } from '../sandbox/sandbox.ts';
import type { VolumeSnapshot } from '../volume/volume.ts';
import { specOfPod, type PodRules } from './annotations.ts';
import { PodFile, type ContainerRecord, type ExitRecord, type PodRecord } from './pod-record.ts';
import { VolumeUse } from './volume-use.ts';

/** Exit status of a pod whose VM ended unasked, as containerd has it for what it does not know better. */
export const EXIT_UNKNOWN = 255;
/** The user in whose name Controller.Update attaches volumes. */
const UPDATE_USER = 'controller-update';

/** The sandboxes among which the pods' own are. */
export type PodHost = Pick<
  SandboxManager,
  'create' | 'booted' | 'get' | 'stop' | 'delete' | 'attach' | 'detach' | 'volume'
> & {
  sandbox(sandboxId: string): { readonly stopped: Promise<void>; readonly containers: GuestContainers };
};

/** A container, and the pod that it is in. */
export interface PodContainer {
  readonly pod: Pod;
  readonly container: ContainerRecord;
}

/** What all pods share. */
export interface PodParts {
  readonly manager: PodHost;
  readonly rules: PodRules;
  /** Of their records. */
  readonly directory: string;
  readonly log: Logger;
}

/** One pod: a sandbox, and what containerd has asked for in it. */
export class Pod {
  readonly record: PodRecord;
  readonly log: Logger;
  readonly #manager: PodHost;
  readonly #rules: PodRules;
  readonly #file: PodFile;
  readonly #volumes = new VolumeUse();
  readonly #ended = Promise.withResolvers<ExitRecord>();
  #watched = false;
  /** Calls of `start` in progress. */
  #starts = 0;
  #destroyed = false;
  readonly #gone = Promise.withResolvers<void>();

  constructor(record: PodRecord, parts: PodParts) {
    this.record = record;
    this.#manager = parts.manager;
    this.#rules = parts.rules;
    this.log = parts.log.child({ sandboxId: record.sandboxId });
    this.#file = new PodFile(parts.directory, () => this.record);
    for (const container of record.containers) {
      for (const volumeId of container.volumes) this.#volumes.restore(volumeId, container.id);
    }
    for (const volumeId of record.updateVolumes) this.#volumes.restore(volumeId, UPDATE_USER);
    if (record.exit !== undefined) this.#ended.resolve(record.exit);
  }

  get sandboxId(): string {
    return this.record.sandboxId;
  }

  /** Resolves when the pod's VM has been seen to be gone; pending while the daemon does not know. */
  get ended(): Promise<ExitRecord> {
    return this.#ended.promise;
  }

  /** The process on this host that is the pod; 0 before it runs. */
  get pid(): number {
    return this.snapshot?.qemuPid ?? this.record.pid ?? 0;
  }

  /** Of the pod's own sandbox: one of the same id that somebody else has made is not the pod's. */
  get snapshot(): SandboxSnapshot | undefined {
    return this.record.begun ? this.#found() : undefined;
  }

  #found(): SandboxSnapshot | undefined {
    try {
      return this.#manager.get(this.sandboxId);
    } catch (error) {
      if (isShimError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** Its id is that of a sandbox which is not its own. */
  get taken(): boolean {
    return !this.record.begun && this.#found() !== undefined;
  }

  /** Nothing is left of it. */
  get destroyed(): boolean {
    return this.#destroyed;
  }

  /** Resolves when nothing is left of it. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /** Asked for, and neither seen to run nor to be about to: whoever asked may be gone. */
  get abandoned(): boolean {
    const { implicit, startedAtMs, containers } = this.record;
    return this.#starts === 0 && (startedAtMs === undefined || (implicit && containers.length === 0));
  }

  /** What runs in its guest. @throws ShimError NOT_FOUND / SANDBOX_NOT_FOUND */
  get containers(): GuestContainers {
    return this.#manager.sandbox(this.sandboxId).containers;
  }

  commit(): Promise<void> {
    return this.#file.commit();
  }

  /** As `commit`, after an observation: a failure is logged, since what was seen stays true. */
  async commitSoon(): Promise<void> {
    try {
      await this.commit();
    } catch (error) {
      this.log.warn({ problem: messageOf(error) }, "pod's record not written");
    }
  }

  /**
   * Boots the sandbox, or joins a boot. When the boot fails nothing of the pod is left: containerd forgets a pod whose
   * Start failed, and never asks for it again. For the same reason a pod whose last caller has gone before the answer
   * is taken away. A pod that has been started stays, whatever becomes of a repeat; and one whose daemon ends is asked
   * for again of the next.
   * @throws ShimError ALREADY_EXISTS / SANDBOX_EXISTS for a sandbox of that id that is not the pod's: it is left alone;
   *   FAILED_PRECONDITION / SANDBOX_NOT_RUNNING when its VM has ended
   */
  async start({ signal, leaving }: Pick<Caller, 'signal' | 'leaving'>): Promise<SandboxSnapshot> {
    this.#starts += 1;
    const booting = this.#boot();
    try {
      const snapshot = await waitFor(booting, { signal });
      if (snapshot.state !== 'running') throw notRunning(this.sandboxId, snapshot);
      await this.#started(snapshot.qemuPid);
      return snapshot;
    } catch (error) {
      if (leaving.aborted) throw error;
      await booting.catch(() => undefined);
      if (this.#starts === 1 && this.record.startedAtMs === undefined) await this.destroy();
      throw error;
    } finally {
      this.#starts -= 1;
    }
  }

  async #begin(): Promise<void> {
    if (this.record.begun) return;
    if (this.taken) throw notOurs(this.sandboxId);
    this.record.begun = true;
    await this.commit();
  }

  /** The pod's own VM is joined whatever the configuration says by now. */
  async #boot(): Promise<SandboxSnapshot> {
    const { record, sandboxId } = this;
    await this.#begin();
    if (this.snapshot !== undefined) return await this.#manager.booted(sandboxId);
    return await this.#manager.create(sandboxId, specOfPod(record, this.#rules));
  }

  async #started(pid: number): Promise<void> {
    const { record } = this;
    if (record.startedAtMs !== undefined) return;
    record.startedAtMs = Date.now();
    record.pid = pid;
    try {
      await this.commit();
    } catch (error) {
      record.startedAtMs = undefined;
      throw error;
    }
    this.watch();
  }

  /** Follows the sandbox to its end. */
  watch(): void {
    if (this.#watched || this.record.exit !== undefined) return;
    this.#watched = true;
    const { snapshot } = this;
    if (snapshot === undefined) {
      this.#end({ code: EXIT_UNKNOWN, atMs: Date.now() });
      return;
    }
    void this.#manager.sandbox(this.sandboxId).stopped.then(() => this.#end(exitOf(this.snapshot)));
  }

  #end(exit: ExitRecord): void {
    if (this.record.exit !== undefined) return;
    this.record.exit = exit;
    void this.commitSoon();
    this.#ended.resolve(exit);
  }

  /** @param graceMs for both graceful steps, the agent's and the power button's, together */
  async stop(graceMs: number): Promise<void> {
    if (this.snapshot === undefined) return;
    await this.#manager.stop(this.sandboxId, { force: false, gracefulTimeoutMs: Math.ceil(graceMs / 2) });
  }

  /**
   * Ends the VM of a guest that does not answer, because a container in it has to end. Nothing to do once it is gone.
   * @throws ShimError UNAVAILABLE / QEMU_NOT_KILLED
   */
  async endSilent(problem: string): Promise<void> {
    if (this.snapshot === undefined) return;
    this.log.error({ problem }, 'the guest does not answer; its VM is ended, because a container has to end');
    await this.#manager.stop(this.sandboxId, { force: true, gracefulTimeoutMs: 1 });
  }

  /** Ends the VM if it still runs, and removes every trace of the pod. */
  async destroy(): Promise<void> {
    if (this.record.begun) {
      // One that boots cannot be deleted yet; a boot that fails leaves nothing.
      if (this.snapshot?.state === 'creating') await this.#manager.booted(this.sandboxId).catch(() => undefined);
      await this.#manager.delete(this.sandboxId, true);
    }
    this.#destroyed = true;
    this.#end({ code: EXIT_UNKNOWN, atMs: Date.now() });
    this.#gone.resolve();
    await this.#file.remove();
  }

  /** The daemon ends: what this object still sees is the next daemon's to see, and to write down. */
  leave(): Promise<void> {
    return this.#file.leave();
  }

  container(id: string): ContainerRecord | undefined {
    return this.record.containers.find((container) => container.id === id);
  }

  /** Attaches a volume on behalf of a container, or joins those that use it already. */
  attach(user: string, volumeId: string, spec: RequestedSpec, signal?: AbortSignal): Promise<VolumeSnapshot> {
    const options = { timeoutMs: 0, ...(signal === undefined ? {} : { callerWait: signal }) };
    // One that somebody else has attached under this id is not the user's; one that goes on after its caller has gone
    // is.
    const mayStay = (error: unknown): boolean =>
      !isShimError(error, 'ALREADY_EXISTS') && this.volume(volumeId) !== undefined;
    const attach = (): Promise<VolumeSnapshot> => this.#manager.attach(this.sandboxId, volumeId, spec, options);
    return this.#volumes.acquire(volumeId, user, attach, mayStay);
  }

  /** One that the pod's VM has, or is about to have or to lose. */
  volume(volumeId: string): VolumeSnapshot | undefined {
    try {
      const volume = this.#manager.volume(this.sandboxId, volumeId);
      return volume.state.state === 'removed' ? undefined : volume;
    } catch (error) {
      if (isShimError(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** Gives up a container's use of a volume; the last user's going detaches it. Nothing to do once the VM is gone. */
  async release(user: string, volumeId: string): Promise<void> {
    await this.#volumes.release(volumeId, user, async () => {
      try {
        await this.#manager.detach(this.sandboxId, volumeId, { force: false, timeoutMs: 0 });
      } catch (error) {
        // Never attached, or gone with its VM.
        if (isShimError(error, 'NOT_FOUND') || this.snapshot?.state !== 'running') return;
        throw error;
      }
    });
  }

  /**
   * Brings the volumes that Controller.Update has asked for to `wanted`: attaches what is new, detaches what is not
   * named any more. What could be done stays done when something fails.
   */
  async updateVolumes(wanted: ReadonlyMap<string, RequestedSpec>, signal: AbortSignal): Promise<void> {
    const gone = this.record.updateVolumes.filter((volumeId) => !wanted.has(volumeId));
    this.record.updateVolumes = [...new Set([...this.record.updateVolumes, ...wanted.keys()])];
    await this.commit();
    const results = await Promise.allSettled([
      ...gone.map(async (volumeId) => {
        await this.release(UPDATE_USER, volumeId);
        this.#forgetUpdate(volumeId);
      }),
      ...[...wanted].map(async ([volumeId, spec]) => {
        try {
          await this.attach(UPDATE_USER, volumeId, spec, signal);
        } catch (error) {
          // One that an earlier Update has attached, or that this one may yet attach, stays on the list.
          if (!this.#volumes.isUsedBy(volumeId, UPDATE_USER)) this.#forgetUpdate(volumeId);
          throw error;
        }
      }),
    ]);
    void this.commitSoon();
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #forgetUpdate(volumeId: string): void {
    this.record.updateVolumes = this.record.updateVolumes.filter((id) => id !== volumeId);
  }
}

/** 0 for a pod that was stopped or shut itself down. */
function exitOf(snapshot: SandboxSnapshot | undefined): ExitRecord {
  const orderly = snapshot?.cause?.reason === 'STOPPED' || snapshot?.cause?.reason === 'GUEST_SHUTDOWN';
  return { code: orderly ? 0 : EXIT_UNKNOWN, atMs: Date.now() };
}

/** For a pod whose VM has ended: containerd would wait for a process that is not there. */
function notRunning(sandboxId: string, { state, cause }: SandboxSnapshot): ShimError {
  const why = cause === undefined ? '' : `: ${cause.message}`;
  return new ShimError('FAILED_PRECONDITION', `sandbox ${sandboxId} is ${state}, not running${why}`, {
    reason: 'SANDBOX_NOT_RUNNING',
    metadata: { sandboxId, state },
  });
}

/** For a sandbox that has a pod's id and is not its own. */
export function notOurs(sandboxId: string): ShimError {
  return new ShimError('ALREADY_EXISTS', `there is a sandbox ${sandboxId} already, which is not this pod's`, {
    reason: 'SANDBOX_EXISTS',
    metadata: { sandboxId },
  });
}

/** NOT_FOUND, which containerd takes for "gone already". */
export function noPod(namespace: string, id: string): ShimError {
  return new ShimError('NOT_FOUND', `there is no pod ${id} in namespace ${namespace}`, {
    reason: 'SANDBOX_NOT_FOUND',
    metadata: { namespace, id },
  });
}
