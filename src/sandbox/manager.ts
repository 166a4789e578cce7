import { rm } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { sleep, waitFor, type WaitLimits } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import { checkId } from '../base/ids.ts';
import { sandboxDirectory } from '../qemu/files.ts';
import { clearBareQemus } from '../qemu/bare-qemu.ts';
import { asShimError } from '../qmp/errors.ts';
import type { EventLog } from '../store/events.ts';
import {
  beginAdmission,
  reasonsAgainst,
  refusalUnlessRunning,
  withinRoots,
  type Request,
} from '../volume/admission.ts';
import { attachVolume } from '../volume/attach.ts';
import {
  attachMany,
  checkBatch,
  detachMany,
  planAttach,
  type BatchHost,
  type BatchResult,
  type VolumePlan,
} from '../volume/batch.ts';
import { detachVolume } from '../volume/detach.ts';
import { lookAtDriver } from '../volume/guest-reset.ts';
import { ASK_MS } from '../volume/let-go.ts';
import { lookAtMade } from '../volume/still-there.ts';
import {
  changeKeySlots,
  listKeySlots,
  type KeySlotChange,
  type KeySlots,
  type KeySlotsTarget,
} from '../volume/operations/key-slots.ts';
import { limitVolume } from '../volume/operations/limits.ts';
import { presentSize } from '../volume/operations/present-size.ts';
import { resizeVolume } from '../volume/operations/resize.ts';
import { cancelOperation, operationNotFound } from '../volume/operations/slot.ts';
import { migrateVolume, pivotVolume, type MigrateRequest } from '../volume/operations/migrate.ts';
import type { OperationView } from '../volume/model/operation.ts';
import type { Lease } from '../volume/model/lease.ts';
import { completeDraw, type RequestedDraw } from '../volume/model/draw.ts';
import { completeLimits, isLimited, type IoLimits } from '../volume/model/limits.ts';
import { causeFrom, type VolumeState } from '../volume/model/state.ts';
import { renewLease } from '../volume/renew-lease.ts';
import type { RequestedSpec } from '../volume/spec.ts';
import type { StaleCopies } from '../volume/stale-copies.ts';
import type { Volume, VolumeSnapshot } from '../volume/volume.ts';
import { adoptAll } from './adopt.ts';
import { bootSandbox, newUuid } from './boot.ts';
import { makeSandbox, type SandboxEnvironment } from './environment.ts';
import { limitLogs } from './log-limit.ts';
import type { Sandbox, SandboxSnapshot } from './sandbox.ts';
import type { IoBudgets } from './io-budgets.ts';
import { completeSandboxSpec, poolKind, type RequestedSandboxSpec, type SandboxSpec } from './spec.ts';
import { pauseSandbox, rebootSandbox, resumeSandbox } from './power.ts';
import { stoppedAgain, successorOf } from './start-again.ts';
import { stopSandbox } from './stop.ts';
import { whyLate } from './why-late.ts';

/**
 * The daemon's sandboxes, by their ids:
 *
 *     start  ─▶ adopt.ts ─▶ sandboxes that ran on
 *     create ─▶ boot.ts ─┬─ pool-start.ts: a member of the warm pool
 *                        ├─ clone.ts: a template
 *                        └─ a boot              stop ─▶ stop.ts
 *     attach ─▶ volume/admission.ts ─▶ volumes.add ─▶ volume/attach.ts     detach ─▶ volume/detach.ts
 */

const CLEAR_RETRY_MS = 500;

/**
 * All sandboxes of the daemon: what `api/` and `containerd/` call. Ids are checked here, and every call is idempotent
 * on them.
 */
export class SandboxManager {
  readonly #environment: SandboxEnvironment;
  readonly #sandboxes = new Map<string, Sandbox>();
  /** Creates in progress; repeats join them. A create that fails leaves nothing behind. */
  readonly #creating = new Map<string, Promise<void>>();
  /** Deletes in progress; repeats join them. */
  readonly #deleting = new Map<string, Promise<void>>();
  /** Reboots in progress; repeats join them. */
  readonly #rebooting = new Map<Sandbox, Promise<void>>();
  /** Directories of failed creates that could not be removed (read-only, no descriptor left); tried until they are. */
  readonly #clearing = new Map<string, Promise<void>>();
  readonly #leaving = new AbortController();
  #limitingLogs: Promise<void> | undefined;
  #draining = false;

  constructor(environment: SandboxEnvironment) {
    this.#environment = environment;
  }

  /** All events of the daemon. */
  get events(): EventLog {
    return this.#environment.events;
  }

  /** The daemon's budgets of I/O. */
  get ioBudgets(): IoBudgets {
    return this.#environment.ioBudgets;
  }

  /** How often counters are looked at, in ms; 0: only when a caller asks. */
  get statsPeriodMs(): number {
    return this.#environment.config.stats_period_ms;
  }

  /** What failovers have left behind. */
  get staleCopies(): StaleCopies {
    return this.#environment.staleCopies;
  }

  /** Takes over what an earlier daemon left running. The state directory is there, and settled (directories.ts). */
  async start(): Promise<void> {
    const { config } = this.#environment;
    await clearBareQemus(config, this.#environment.log);
    await this.#environment.ioBudgets.start(() => this.#sandboxes.values());
    for (const { sandbox, booting, again } of await adoptAll(this.#environment)) {
      this.#sandboxes.set(sandbox.id, sandbox);
      if (booting === undefined) continue;
      if (again) this.#followAgain(sandbox, booting);
      else this.#follow(sandbox, booting);
    }
    await this.#environment.templates.trim();
    this.#limitingLogs = limitLogs(config, () => this.#sandboxes.values(), this.#leaving.signal);
  }

  /** Lets go of every sandbox and leaves the VMs running. */
  async release(): Promise<void> {
    this.#draining = true;
    const creating = [...this.#creating.values()];
    const results = await Promise.allSettled([...this.#sandboxes.values()].map((sandbox) => sandbox.release()));
    for (const result of results) {
      if (result.status === 'rejected') {
        this.#environment.log.error({ problem: messageOf(result.reason) }, 'sandbox not released cleanly');
      }
    }
    // A boot that is cut short by this undoes itself: nobody was told of a sandbox yet.
    await Promise.allSettled(creating);
    this.#leaving.abort();
    await Promise.all([...this.#clearing.values(), this.#limitingLogs]);
  }

  /**
   * Starts a sandbox, or answers as the first time when id and spec are the same. One that has stopped is no answer.
   * @param callerWait ends only this caller's waiting
   * @throws ShimError ALREADY_EXISTS / SANDBOX_EXISTS; FAILED_PRECONDITION / SANDBOX_NOT_RUNNING, SANDBOX_STOPPING;
   *   what bootSandbox throws
   */
  async create(sandboxId: string, requested: RequestedSandboxSpec, callerWait?: AbortSignal): Promise<SandboxSnapshot> {
    this.#refuseWhenDraining();
    checkId('sandbox_id', sandboxId);
    const { config } = this.#environment;
    const spec = completeSandboxSpec(requested, config);
    const existing = this.#sandboxes.get(sandboxId);
    if (existing === undefined) {
      this.#refuseWhileClearing(sandboxId);
      this.#begin(sandboxId, spec);
    } else if (!isDeepStrictEqual(existing.identity.spec, spec)) {
      throw new ShimError('ALREADY_EXISTS', `sandbox ${sandboxId} exists already, with another spec`, {
        reason: 'SANDBOX_EXISTS',
        metadata: { sandboxId },
      });
    }
    const creating = this.#creating.get(sandboxId);
    if (creating !== undefined) await waitFor(creating, limitsOf(callerWait));
    return this.#runningNow(sandboxId);
  }

  /**
   * What Create and Start answer with: they say that there is a VM.
   * @throws ShimError NOT_FOUND; FAILED_PRECONDITION / SANDBOX_NOT_RUNNING, SANDBOX_STOPPING
   */
  #runningNow(sandboxId: string): SandboxSnapshot {
    const snapshot = this.get(sandboxId);
    const refusal = refusalUnlessRunning({ ...snapshot, unresponsive: false });
    if (refusal !== undefined) throw refusal;
    return snapshot;
  }

  /**
   * A sandbox, once its boot, if one is in progress, is over.
   * @throws ShimError NOT_FOUND / SANDBOX_NOT_FOUND; what the boot throws
   */
  async booted(sandboxId: string): Promise<SandboxSnapshot> {
    await this.#creating.get(sandboxId);
    return this.get(sandboxId);
  }

  #begin(sandboxId: string, spec: SandboxSpec): void {
    const { config } = this.#environment;
    if (this.#sandboxes.size >= config.sandboxes_max) {
      throw new ShimError('RESOURCE_EXHAUSTED', `all ${config.sandboxes_max} sandboxes are in use`, {
        reason: 'TOO_MANY_SANDBOXES',
        metadata: { max: String(config.sandboxes_max) },
      });
    }
    // Its directory and its UUID are part of its QEMU's command line: they become the sandbox's.
    const member = spec.template === 'off' ? undefined : this.#environment.pool.take(poolKind(spec));
    const identity = {
      id: sandboxId,
      spec,
      uuid: member?.uuid ?? newUuid(),
      createdAtMs: Date.now(),
      directory: member?.files.directory ?? sandboxDirectory(config.state_dir, sandboxId),
    };
    const sandbox = makeSandbox(this.#environment, identity, member?.agent);
    this.#sandboxes.set(sandboxId, sandbox);
    sandbox.begin();
    this.#follow(sandbox, bootSandbox(sandbox, this.#environment, { member }));
  }

  /**
   * Follows a boot to its end; one that fails leaves nothing behind.
   * INVARIANT: until then the id is not free. Else the last record of this sandbox could be written over the first of
   * the next one of its name, and watchers would hear of the end of the one after the beginning of the other.
   */
  #follow(sandbox: Sandbox, boot: Promise<void>): void {
    const { id } = sandbox;
    const work = boot.then(
      () => void this.#creating.delete(id),
      async (error: unknown) => {
        const problem = asShimError(error);
        await sandbox.release().catch(() => undefined);
        if (sandbox.directoryLeft) this.#clearAway(sandbox);
        sandbox.log.warn({ reason: problem.reason, problem: problem.message }, 'sandbox not created');
        this.#sandboxes.delete(id);
        this.#creating.delete(id);
        sandbox.announce('sandbox.deleted', { reason: problem.reason, message: problem.message });
        throw problem;
      },
    );
    work.catch(() => undefined); // Every caller may have gone; the failure is logged above.
    this.#creating.set(id, work);
  }

  /** Removes the directory of a create that failed, as soon as that is possible. Until then its id is not free. */
  #clearAway({ id, files, log }: Sandbox): void {
    const { signal } = this.#leaving;
    const work = (async () => {
      while (!signal.aborted) {
        await sleep(CLEAR_RETRY_MS, signal).catch(() => undefined);
        try {
          await rm(files.directory, { recursive: true, force: true });
          return;
        } catch (error) {
          log.debug({ problem: messageOf(error) }, 'state directory still not removed');
        }
      }
    })().finally(() => this.#clearing.delete(id));
    this.#clearing.set(id, work);
  }

  #refuseWhileClearing(sandboxId: string): void {
    if (!this.#clearing.has(sandboxId)) return;
    throw new ShimError(
      'FAILED_PRECONDITION',
      `what a failed start of sandbox ${sandboxId} has left cannot be removed yet`,
      {
        reason: 'SANDBOX_CREATING',
        metadata: { sandboxId },
      },
    );
  }

  /** @throws ShimError NOT_FOUND / SANDBOX_NOT_FOUND */
  get(sandboxId: string): SandboxSnapshot {
    return this.#find(sandboxId).snapshot();
  }

  list(labels: Readonly<Record<string, string>>): readonly SandboxSnapshot[] {
    const wanted = Object.entries(labels);
    return [...this.#sandboxes.values()]
      .filter(({ identity }) => wanted.every(([key, value]) => identity.spec.labels[key] === value))
      .map((sandbox) => sandbox.snapshot());
  }

  /** The live object, for streams and for the guest. @throws ShimError NOT_FOUND / SANDBOX_NOT_FOUND */
  sandbox(sandboxId: string): Sandbox {
    return this.#find(sandboxId);
  }

  async stop(
    sandboxId: string,
    options: { readonly force: boolean; readonly gracefulTimeoutMs: number },
  ): Promise<SandboxSnapshot> {
    const sandbox = this.#find(sandboxId);
    this.#refuseWhileCreating(sandbox);
    await stopSandbox(sandbox, {
      force: options.force,
      gracefulTimeoutMs:
        options.gracefulTimeoutMs === 0 ? this.#environment.config.stop_timeout_ms : options.gracefulTimeoutMs,
    });
    return sandbox.snapshot();
  }

  /**
   * Starts a sandbox that has stopped: a new VM of the same spec, UUID and id, with no volumes. One that runs answers
   * as it is. When the start fails the sandbox stays stopped, with why.
   * @param callerWait ends only this caller's waiting
   * @throws ShimError NOT_FOUND; FAILED_PRECONDITION / SANDBOX_STOPPING; what bootSandbox throws
   */
  async startAgain(sandboxId: string, callerWait?: AbortSignal): Promise<SandboxSnapshot> {
    this.#refuseWhenDraining();
    const sandbox = this.#find(sandboxId);
    if (sandbox.state === 'stopping' || this.#deleting.has(sandboxId)) {
      throw new ShimError('FAILED_PRECONDITION', `sandbox ${sandboxId} is still being stopped`, {
        reason: 'SANDBOX_STOPPING',
        metadata: { sandboxId },
      });
    }
    if (sandbox.state === 'stopped' && !this.#creating.has(sandboxId)) this.#beginAgain(sandbox);
    const creating = this.#creating.get(sandboxId);
    if (creating !== undefined) await waitFor(creating, limitsOf(callerWait));
    return this.#runningNow(sandboxId);
  }

  #beginAgain(stopped: Sandbox): void {
    const { id } = stopped;
    const sandbox = successorOf(stopped, this.#environment);
    this.#sandboxes.set(id, sandbox);
    sandbox.begin();
    const boot = async (): Promise<void> => {
      await stopped.stopped;
      await stopped.release();
      await bootSandbox(sandbox, this.#environment, { again: true });
    };
    this.#followAgain(sandbox, boot());
  }

  /** Follows the boot of a sandbox that had stopped to its end; one that fails leaves it stopped, with why. */
  #followAgain(sandbox: Sandbox, boot: Promise<void>): void {
    const { id } = sandbox;
    const work = boot
      .catch(async (error: unknown) => {
        const problem = asShimError(error);
        await sandbox.release().catch(() => undefined);
        sandbox.log.warn({ reason: problem.reason, problem: problem.message }, 'sandbox not started again');
        this.#sandboxes.set(id, await stoppedAgain(sandbox, this.#environment, causeFrom(problem)));
        throw problem;
      })
      .finally(() => void this.#creating.delete(id));
    work.catch(() => undefined); // Every caller may have gone; the failure is logged above.
    this.#creating.set(id, work);
  }

  /** @throws ShimError NOT_FOUND; as pauseSandbox does */
  async pause(sandboxId: string): Promise<SandboxSnapshot> {
    const sandbox = this.#find(sandboxId);
    await pauseSandbox(sandbox);
    return sandbox.snapshot();
  }

  /** @throws ShimError NOT_FOUND; as resumeSandbox does */
  async resume(sandboxId: string): Promise<SandboxSnapshot> {
    const sandbox = this.#find(sandboxId);
    await resumeSandbox(sandbox);
    return sandbox.snapshot();
  }

  /**
   * Reboots a guest; a call that comes meanwhile joins.
   * @throws ShimError NOT_FOUND; as rebootSandbox does
   */
  async reboot(
    sandboxId: string,
    options: { readonly force: boolean; readonly gracefulTimeoutMs: number; readonly callerWait: AbortSignal },
  ): Promise<SandboxSnapshot> {
    const sandbox = this.#find(sandboxId);
    const { force, callerWait } = options;
    const gracefulTimeoutMs = options.gracefulTimeoutMs || this.#environment.config.stop_timeout_ms;
    const work =
      this.#rebooting.get(sandbox) ??
      rebootSandbox(sandbox, { force, gracefulTimeoutMs }).finally(() => void this.#rebooting.delete(sandbox));
    this.#rebooting.set(sandbox, work);
    await waitFor(work, { signal: callerWait });
    return sandbox.snapshot();
  }

  /** Forgets a stopped sandbox; a repeat finds nothing and is content. @returns whether there was such a sandbox */
  async delete(sandboxId: string, force: boolean): Promise<boolean> {
    checkId('sandbox_id', sandboxId);
    const sandbox = this.#sandboxes.get(sandboxId);
    if (sandbox === undefined) return false;
    this.#refuseWhileCreating(sandbox);
    // It ran, or its QEMU has ended, and its Create is not over: one that fails takes the sandbox away itself.
    await this.#creating.get(sandboxId)?.catch(() => undefined);
    if (this.#sandboxes.get(sandboxId) !== sandbox) return true;
    if (sandbox.state !== 'stopped') {
      if (!force) {
        throw new ShimError(
          'FAILED_PRECONDITION',
          `sandbox ${sandboxId} is ${sandbox.state}; stop it first, or delete with force`,
          {
            reason: 'SANDBOX_RUNNING',
            metadata: { sandboxId, state: sandbox.state },
          },
        );
      }
    }
    const deleting = this.#deleting.get(sandboxId) ?? this.#remove(sandbox);
    this.#deleting.set(sandboxId, deleting);
    await deleting;
    return true;
  }

  /** Stops what still runs, then removes every trace. The id is free for another sandbox only when this is over. */
  async #remove(sandbox: Sandbox): Promise<void> {
    try {
      await stopSandbox(sandbox, { force: true, gracefulTimeoutMs: 1 });
      // The last record of a stopped sandbox may still be on its way to the disk: it must not come to the next one's.
      await sandbox.stopped;
      await sandbox.release();
      await rm(sandbox.files.directory, { recursive: true, force: true });
      this.#sandboxes.delete(sandbox.id);
      sandbox.announce('sandbox.deleted', undefined);
    } finally {
      this.#deleting.delete(sandbox.id);
    }
  }

  /** Attaches a volume, or answers as the first time when id and spec are the same. */
  async attach(
    sandboxId: string,
    volumeId: string,
    requested: RequestedSpec,
    options: Pick<Request, 'roots' | 'lease'> & { readonly timeoutMs: number; readonly callerWait?: AbortSignal },
  ): Promise<VolumeSnapshot> {
    const { roots, lease } = options;
    return await this.#attach(this.#find(sandboxId), { volumeId, spec: requested, roots, lease }, options);
  }

  async #attach(
    sandbox: Sandbox,
    request: Request,
    { timeoutMs, callerWait }: { readonly timeoutMs: number; readonly callerWait?: AbortSignal },
    begun?: (volume: Volume) => void,
  ): Promise<VolumeSnapshot> {
    this.#refuseWhenDraining();
    const { config } = sandbox;
    const admission = beginAdmission(request);
    for await (const reason of reasonsAgainst(sandbox, request, admission)) throw reason;
    const { volumeId, spec, source, repeated } = admission;
    if (repeated !== undefined) return await this.#repeatAttach(sandbox, repeated, request, callerWait);
    if (spec === undefined || source === undefined)
      throw new Error('nothing is against it, and nothing is known of it');
    // What an adopted VM has is known only once QEMU was asked (reconcile.ts): before, names and slots may seem free.
    await waitFor(sandbox.link.within(config.qmp_reply_timeout_ms, sandbox.gone), limitsOf(callerWait));
    // Between the look at the source and here others may have come first: the checks below run without an await.
    const refusal = refusalUnlessRunning(sandbox);
    if (refusal !== undefined) throw refusal;
    // Nothing has begun yet: for a caller that has gone, nothing begins.
    callerWait?.throwIfAborted();
    const raced = sandbox.volumes.repeated(volumeId, spec);
    if (raced !== undefined) return await this.#repeatAttach(sandbox, raced, request, callerWait);
    const volume = sandbox.volumes.add(volumeId, spec, source, request.lease);
    begun?.(volume);
    const work = attachVolume(sandbox, volume, timeoutMs === 0 ? config.attach_timeout_ms : timeoutMs);
    volume.attachBy(work).catch(() => undefined); // The caller may go before the end; the record keeps the cause.
    return await this.#joinAttach(sandbox, volume, callerWait);
  }

  /** One that is attached already is looked at again: its guest may have been reset, or have unmounted it, since. */
  async #repeatAttach(
    sandbox: Sandbox,
    volume: Volume,
    { lease }: Request,
    callerWait: AbortSignal | undefined,
  ): Promise<VolumeSnapshot> {
    if (lease !== undefined) await renewLease(sandbox, volume, lease);
    if (volume.state.state === 'attached') {
      const signal = callerWait === undefined ? sandbox.gone : AbortSignal.any([sandbox.gone, callerWait]);
      await waitFor(lookAtDriver(sandbox, volume), { signal });
      await lookAtMade(sandbox, volume, { milliseconds: ASK_MS, signal });
    }
    return await this.#joinAttach(sandbox, volume, callerWait);
  }

  async #joinAttach(sandbox: Sandbox, volume: Volume, callerWait: AbortSignal | undefined): Promise<VolumeSnapshot> {
    const limits = limitsOf(callerWait);
    // An adopted volume that is still PENDING is taken up once QEMU can be asked (reconcile.ts).
    if (volume.state.state === 'pending' && volume.attaching === undefined) await waitFor(sandbox.link.ready(), limits);
    if (volume.attaching !== undefined) await waitFor(volume.attaching, limits);
    const snapshot = volume.snapshot();
    if (snapshot.state.state === 'attached') return snapshot;
    throw new ShimError('ABORTED', `volume ${volume.id} is ${snapshot.state.state}: a concurrent operation won`, {
      reason: 'CONCURRENT_OPERATION',
      metadata: { sandboxId: sandbox.id, volumeId: volume.id, state: snapshot.state.state },
    });
  }

  /** Detaches a volume; a repeat joins the detach in progress, or finds the volume removed and is content. */
  async detach(
    sandboxId: string,
    volumeId: string,
    options: { readonly force: boolean; readonly timeoutMs: number; readonly callerWait?: AbortSignal },
  ): Promise<VolumeSnapshot> {
    return await this.#detach(this.#find(sandboxId), volumeId, options);
  }

  async #detach(
    sandbox: Sandbox,
    volumeId: string,
    options: { readonly force: boolean; readonly timeoutMs: number; readonly callerWait?: AbortSignal },
  ): Promise<VolumeSnapshot> {
    const volume = this.#findVolume(sandbox, volumeId);
    const timeoutMs = options.timeoutMs === 0 ? sandbox.config.detach_timeout_ms : options.timeoutMs;
    await detachVolume(sandbox, volume, { ...options, timeoutMs }).catch((error: unknown) => {
      throw whyLate(sandbox, error, timeoutMs);
    });
    return volume.snapshot();
  }

  /** Attaches all, at once: as volume/batch.ts does. @throws ShimError as checkBatch does; NOT_FOUND */
  async attachMany(
    sandboxId: string,
    requests: readonly Request[],
    options: { readonly atomic: boolean; readonly timeoutMs: number; readonly callerWait: AbortSignal },
  ): Promise<readonly BatchResult[]> {
    const sandbox = this.#batchIn(sandboxId, requests);
    // Members go on without the caller: a batch is never left half-way.
    const host = this.#batchHost(sandbox, requests.length, { timeoutMs: options.timeoutMs });
    return await attachMany(host, requests, options);
  }

  /** Detaches all, at once. Throws as attachMany does. */
  async detachMany(
    sandboxId: string,
    volumeIds: readonly string[],
    options: { readonly force: boolean; readonly timeoutMs: number; readonly callerWait: AbortSignal },
  ): Promise<readonly BatchResult[]> {
    const members = volumeIds.map((volumeId) => ({ volumeId }));
    const sandbox = this.#batchIn(sandboxId, members);
    return await detachMany(this.#batchHost(sandbox, members.length, options), volumeIds, options.force);
  }

  /** What attachMany would do. Throws as it does. */
  async planAttach(sandboxId: string, requests: readonly Request[]): Promise<readonly VolumePlan[]> {
    return await planAttach(this.#batchIn(sandboxId, requests), requests);
  }

  #batchIn(sandboxId: string, members: readonly { readonly volumeId: string }[]): Sandbox {
    checkBatch(
      members.map(({ volumeId }) => volumeId),
      this.#environment.config.batch_max,
    );
    return this.#find(sandboxId);
  }

  /** A guest takes and lets go of disks one after the other: each member has the time of those before it too. */
  #batchHost(
    sandbox: Sandbox,
    members: number,
    options: { readonly timeoutMs: number; readonly callerWait?: AbortSignal },
  ): BatchHost {
    const { attach_timeout_ms, detach_timeout_ms, batch_volume_ms } = sandbox.config;
    const grown = (ofOneMs: number): number => (options.timeoutMs || ofOneMs) + (members - 1) * batch_volume_ms;
    return {
      id: sandbox.id,
      volumes: sandbox.volumes,
      attach: (request, begun) =>
        this.#attach(sandbox, request, { ...options, timeoutMs: grown(attach_timeout_ms) }, begun),
      detach: (volumeId, force) =>
        this.#detach(sandbox, volumeId, { ...options, force, timeoutMs: grown(detach_timeout_ms) }),
    };
  }

  /**
   * Grows an attached volume: as volume/operations/resize.ts does.
   * @param options `sizeBytes` 0: what its source has now
   * @throws ShimError as volume/operations/resize.ts and present-size.ts do; NOT_FOUND
   */
  async resize(
    sandboxId: string,
    volumeId: string,
    options: { readonly sizeBytes: number; readonly timeoutMs: number; readonly callerWait: AbortSignal },
  ): Promise<VolumeSnapshot> {
    const sandbox = this.#find(sandboxId);
    const volume = this.#findVolume(sandbox, volumeId);
    const { sizeBytes } = options;
    const wanted = sizeBytes === 0 && !volume.isRemoved() ? await presentSize(sandbox, volume) : sizeBytes;
    return await resizeVolume(sandbox, volume, { ...options, sizeBytes: wanted });
  }

  /**
   * Begins to move a volume: as volume/operations/migrate.ts does.
   * @param roots directories that the caller is limited to
   * @throws ShimError as that does; UNAVAILABLE / QEMU_UNRESPONSIVE; NOT_FOUND
   */
  async migrate(
    sandboxId: string,
    volumeId: string,
    request: MigrateRequest,
    roots: Request['roots'],
  ): Promise<{ readonly volume: VolumeSnapshot; readonly operation: OperationView }> {
    const sandbox = this.#find(sandboxId);
    const volume = this.#findVolume(sandbox, volumeId);
    this.#refuseWhenDraining();
    const refusal = refusalUnlessRunning(sandbox);
    if (refusal !== undefined) throw refusal;
    const operation = await migrateVolume(sandbox, volume, request, withinRoots(sandbox.config, roots));
    return { volume: volume.snapshot(), operation };
  }

  /** Has a move switch: as volume/operations/migrate.ts does. @throws ShimError as that does; NOT_FOUND */
  async pivot(
    sandboxId: string,
    volumeId: string,
  ): Promise<{ readonly volume: VolumeSnapshot; readonly operation: OperationView }> {
    const sandbox = this.#find(sandboxId);
    const volume = this.#findVolume(sandbox, volumeId);
    const operation = await pivotVolume(sandbox, volume);
    return { volume: volume.snapshot(), operation };
  }

  /**
   * Gives a volume another lease: as volume/renew-lease.ts does.
   * @throws ShimError as that does; NOT_FOUND
   */
  async renewLease(sandboxId: string, volumeId: string, lease: Lease): Promise<VolumeSnapshot> {
    const sandbox = this.#find(sandboxId);
    const volume = this.#findVolume(sandbox, volumeId);
    await renewLease(sandbox, volume, lease);
    return volume.snapshot();
  }

  /**
   * Has an operation cancelled: as volume/operations/slot.ts does.
   * @returns its volume afterwards
   * @throws ShimError as that does; NOT_FOUND / SANDBOX_NOT_FOUND, OPERATION_NOT_FOUND
   */
  async cancelOperation(sandboxId: string, operationId: string): Promise<VolumeSnapshot> {
    const sandbox = this.#find(sandboxId);
    const volume = sandbox.volumes.withOperation(checkId('operation_id', operationId));
    if (volume === undefined) throw operationNotFound(sandboxId, operationId);
    await cancelOperation(sandbox, volume, operationId);
    return volume.snapshot();
  }

  /**
   * Holds a volume's I/O to other limits: as volume/operations/limits.ts does.
   * @throws ShimError INVALID_ARGUMENT that names the field; NOT_FOUND; as limitVolume does
   */
  async setLimits(
    sandboxId: string,
    volumeId: string,
    { limits: requested, draw: requestedDraw }: { readonly limits: Partial<IoLimits>; readonly draw: RequestedDraw },
    callerWait: AbortSignal,
  ): Promise<VolumeSnapshot> {
    const limits = completeLimits(requested, 'limits');
    const draw = completeDraw(requestedDraw, 'limits', isLimited(limits));
    const sandbox = this.#find(sandboxId);
    return await limitVolume(sandbox, this.#findVolume(sandbox, volumeId), { limits, draw, callerWait });
  }

  /** Labels of a sandbox that is there, and since when it is; undefined when there is none of that id. */
  labelsOf(sandboxId: string): { readonly labels: SandboxSpec['labels']; readonly createdAtMs: number } | undefined {
    const identity = this.#sandboxes.get(sandboxId)?.identity;
    return identity === undefined ? undefined : { labels: identity.spec.labels, createdAtMs: identity.createdAtMs };
  }

  /** @throws ShimError as volume/operations/key-slots.ts does; NOT_FOUND */
  async keySlots(image: ImageOf): Promise<KeySlots> {
    return await listKeySlots(this.#keySlotsTarget(image));
  }

  /** @throws ShimError as volume/operations/key-slots.ts does; NOT_FOUND */
  async changeKeySlots(image: ImageOf, change: KeySlotChange): Promise<KeySlots> {
    return await changeKeySlots(this.#keySlotsTarget(image), change);
  }

  #keySlotsTarget(image: ImageOf): KeySlotsTarget {
    if ('path' in image) {
      const config = withinRoots(this.#environment.config, image.roots);
      return { kind: 'image', host: { ...this.#environment, config }, path: image.path };
    }
    const host = this.#find(image.sandboxId);
    return { kind: 'attached', host, volume: this.#findVolume(host, image.volumeId) };
  }

  /** @throws ShimError NOT_FOUND / VOLUME_NOT_FOUND */
  volume(sandboxId: string, volumeId: string): VolumeSnapshot {
    return this.#findVolume(this.#find(sandboxId), volumeId).snapshot();
  }

  /**
   * Volumes of one sandbox, or of all when the id is empty.
   * @param states only those in one of these; all when there are none
   */
  volumes(sandboxId: string, states: readonly VolumeState['state'][] = []): readonly VolumeSnapshot[] {
    const sandboxes = sandboxId === '' ? [...this.#sandboxes.values()] : [this.#find(sandboxId)];
    const all = sandboxes.flatMap((sandbox) => sandbox.volumes.snapshots());
    return states.length === 0 ? all : all.filter(({ state }) => states.includes(state.state));
  }

  #find(sandboxId: string): Sandbox {
    checkId('sandbox_id', sandboxId);
    const sandbox = this.#sandboxes.get(sandboxId);
    if (sandbox !== undefined) return sandbox;
    throw new ShimError('NOT_FOUND', `there is no sandbox ${sandboxId}`, {
      reason: 'SANDBOX_NOT_FOUND',
      metadata: { sandboxId },
    });
  }

  #findVolume(sandbox: Sandbox, volumeId: string): Volume {
    checkId('volume_id', volumeId);
    const volume = sandbox.volumes.find(volumeId);
    if (volume !== undefined) return volume;
    throw new ShimError('NOT_FOUND', `sandbox ${sandbox.id} has no volume ${volumeId}`, {
      reason: 'VOLUME_NOT_FOUND',
      metadata: { sandboxId: sandbox.id, volumeId },
    });
  }

  #refuseWhenDraining(): void {
    if (!this.#draining) return;
    throw new ShimError('UNAVAILABLE', 'the daemon is stopping', { reason: 'DAEMON_STOPPING' });
  }

  #refuseWhileCreating(sandbox: Sandbox): void {
    if (sandbox.state !== 'creating') return;
    throw new ShimError('FAILED_PRECONDITION', `sandbox ${sandbox.id} is still being created`, {
      reason: 'SANDBOX_CREATING',
      metadata: { sandboxId: sandbox.id },
    });
  }
}

/** Whose key slots: of an attached volume's image, or of one that nothing uses. */
export type ImageOf =
  | { readonly sandboxId: string; readonly volumeId: string }
  | { readonly path: string; readonly roots?: Request['roots'] };

function limitsOf(signal: AbortSignal | undefined): WaitLimits {
  return signal === undefined ? {} : { signal };
}
