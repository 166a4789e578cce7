import { waitFor } from '../base/deadline.ts';
import { ShimError, invalidArgument } from '../base/errors.ts';
import { checkId } from '../base/ids.ts';
import { withoutDefaults } from './model/defaults.ts';
import { aioCandidates, attachPlan, namesFor, type AttachStep, type Seat } from './model/plan.ts';
import { pciPath } from './model/slots.ts';
import { completeSpec, type RequestedSpec, type VolumeSpec } from './model/spec.ts';
import { asShimError } from './attach.ts';
import { inspectBacking, type Backing } from './backing.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import { defaultSerial, type VolumeSnapshot } from './volume.ts';

/**
 * Several volumes in one call. A batch takes no lock over its members (locking rule 3): each goes its own way, at the same
 * time, so that their commands share the QMP connection, their records the journal's writes, and their waits the guest.
 */

export interface VolumeToAttach {
  readonly volumeId: string;
  readonly spec: RequestedSpec;
}

export interface BatchResult {
  readonly volumeId: string;
  readonly volume: VolumeSnapshot | undefined;
  readonly problem: ShimError | undefined;
}

/**
 * Attaches all, at once.
 * @param options.atomic if one fails, those that this call attached are detached again, and their problem is BATCH_UNDONE
 * @param options.callerWait ends only the caller's waiting, never a batch half-way
 * @throws ShimError INVALID_ARGUMENT for an empty or too long batch, or an id that is named twice; NOT_FOUND
 */
export async function attachMany(
  manager: SandboxManager,
  sandboxId: string,
  volumes: readonly VolumeToAttach[],
  options: { readonly atomic: boolean; readonly timeoutMs: number; readonly callerWait: AbortSignal },
): Promise<readonly BatchResult[]> {
  checkBatch(
    manager,
    volumes.map(({ volumeId }) => volumeId),
  );
  const sandbox = manager.sandbox(sandboxId);
  // What is attached already is not this call's to undo.
  const before = new Set(
    volumes.map(({ volumeId }) => sandbox.volumes.find(volumeId)).filter((one) => one !== undefined),
  );
  const work = (async () => {
    const results = await Promise.all(
      volumes.map(({ volumeId, spec }) =>
        settle(sandbox, volumeId, manager.attach(sandboxId, volumeId, spec, { timeoutMs: options.timeoutMs })),
      ),
    );
    if (!options.atomic || results.every(({ problem }) => problem === undefined)) return results;
    return await Promise.all(results.map((result) => undo(manager, sandbox, result, before)));
  })();
  work.catch(() => undefined); // The caller may go before the end.
  return await waitFor(work, { signal: options.callerWait });
}

async function undo(
  manager: SandboxManager,
  sandbox: Sandbox,
  result: BatchResult,
  before: ReadonlySet<unknown>,
): Promise<BatchResult> {
  if (result.problem !== undefined || before.has(sandbox.volumes.find(result.volumeId))) return result;
  const detached = await settle(
    sandbox,
    result.volumeId,
    manager.detach(sandbox.id, result.volumeId, { force: true, timeoutMs: 0 }),
  );
  const still = detached.problem === undefined ? '' : `; detaching it: ${detached.problem.message}`;
  return {
    ...detached,
    problem: new ShimError('ABORTED', `another volume of the batch failed, so this one was detached again${still}`, {
      reason: 'BATCH_UNDONE',
      metadata: { sandboxId: sandbox.id, volumeId: result.volumeId },
    }),
  };
}

/** Detaches all, at once. Throws as attachMany does. */
export async function detachMany(
  manager: SandboxManager,
  sandboxId: string,
  volumeIds: readonly string[],
  options: { readonly force: boolean; readonly timeoutMs: number; readonly callerWait: AbortSignal },
): Promise<readonly BatchResult[]> {
  checkBatch(manager, volumeIds);
  const sandbox = manager.sandbox(sandboxId);
  return await Promise.all(
    volumeIds.map((volumeId) => settle(sandbox, volumeId, manager.detach(sandboxId, volumeId, options))),
  );
}

async function settle(sandbox: Sandbox, volumeId: string, work: Promise<VolumeSnapshot>): Promise<BatchResult> {
  try {
    return { volumeId, volume: await work, problem: undefined };
  } catch (error) {
    return { volumeId, volume: sandbox.volumes.find(volumeId)?.snapshot(), problem: asShimError(error) };
  }
}

function checkBatch(manager: SandboxManager, volumeIds: readonly string[]): void {
  const max = manager.environment.config.batch_max;
  if (volumeIds.length === 0) throw invalidArgument('volumes', 0, 'at least one volume is needed');
  if (volumeIds.length > max)
    throw invalidArgument('volumes', volumeIds.length, `at most ${max} volumes fit one batch`);
  const seen = new Set<string>();
  for (const volumeId of volumeIds) {
    if (seen.has(volumeId)) throw invalidArgument('volume_id', volumeId, 'is named twice in the batch');
    seen.add(volumeId);
  }
}

export interface VolumePlan {
  readonly volumeId: string;
  readonly pciPath: string;
  readonly blockGraph: readonly string[];
  readonly steps: readonly AttachStep[];
  readonly problems: readonly ShimError[];
}

/**
 * What attachMany would do: slots, block graph, exact commands, and every reason why it would fail. Looks at files; sends
 * nothing to QEMU. Between a plan and the deed things may change.
 */
export async function planAttach(
  manager: SandboxManager,
  sandboxId: string,
  volumes: readonly VolumeToAttach[],
): Promise<readonly VolumePlan[]> {
  checkBatch(
    manager,
    volumes.map(({ volumeId }) => volumeId),
  );
  const sandbox = manager.sandbox(sandboxId);
  const plans = await Promise.all(volumes.map((volume) => examine(manager, sandbox, volume)));
  const slots = sandbox.volumes.previewSlots(volumes.length);
  const place = sandbox.volumes.previewPlacements();
  let generation = sandbox.volumes.nextGeneration;
  let slotIndex = 0;
  const claimed = new Map<string, { readonly volumeId: string; readonly writable: boolean }>();
  const serials = new Map<string, string>();
  return plans.map(({ volumeId, spec, backing, problems }) => {
    if (spec === undefined) return { volumeId, pciPath: '', blockGraph: [], steps: [], problems };
    const existing = sandbox.volumes.find(volumeId);
    if (existing !== undefined && !existing.isRemoved()) {
      return { volumeId, pciPath: pciPath(existing.identity.slot), blockGraph: [], steps: [], problems };
    }
    problems.push(...clashes(volumeId, spec, backing, claimed, serials));
    const slot = slots[slotIndex++];
    if (slot === undefined) {
      problems.push(
        new ShimError('RESOURCE_EXHAUSTED', `no slot of sandbox ${sandbox.id} is left for it`, {
          reason: 'NO_SLOT',
          metadata: { sandboxId: sandbox.id, capacity: String(sandbox.identity.spec.volumeCapacity) },
        }),
      );
      return { volumeId, pciPath: '', blockGraph: [], steps: [], problems };
    }
    const seat = { slot, placement: place(generation, spec.queues) };
    return planOf(volumeId, spec, backing, seat, generation++, problems);
  });
}

function planOf(
  volumeId: string,
  spec: VolumeSpec,
  backing: Backing | undefined,
  seat: Seat,
  generation: number,
  problems: readonly ShimError[],
): VolumePlan {
  const names = namesFor(volumeId, generation);
  const path = backing?.path ?? spec.source.path;
  const resolved = { ...spec, source: { ...spec.source, path } };
  const [aio = 'threads'] = aioCandidates(spec);
  return {
    volumeId,
    pciPath: pciPath(seat.slot),
    blockGraph: [`virtio-blk-pci ${names.device}`, names.formatNode, names.fileNode, path],
    steps: attachPlan(resolved, names, seat, aio).map((step) => withoutDefaults(resolved, step)),
    problems,
  };
}

interface Examined {
  readonly volumeId: string;
  readonly spec: VolumeSpec | undefined;
  readonly backing: Backing | undefined;
  readonly problems: ShimError[];
}

/** Every reason why one volume could not be attached, of those that do not depend on the others. */
async function examine(manager: SandboxManager, sandbox: Sandbox, requested: VolumeToAttach): Promise<Examined> {
  const { config, claims } = manager.environment;
  const { volumeId } = requested;
  const problems: ShimError[] = [];
  const attempt = <T>(act: () => T): T | undefined => {
    try {
      return act();
    } catch (error) {
      problems.push(asShimError(error));
      return undefined;
    }
  };
  attempt(() => checkId('volume_id', volumeId));
  const { vcpus } = sandbox.identity.spec;
  const spec = attempt(() => completeSpec(requested.spec, defaultSerial(volumeId), vcpus));
  if (sandbox.state !== 'running') {
    problems.push(
      new ShimError('FAILED_PRECONDITION', `sandbox ${sandbox.id} is ${sandbox.state}, not running`, {
        reason: 'SANDBOX_NOT_RUNNING',
        metadata: { sandboxId: sandbox.id, state: sandbox.state },
      }),
    );
  }
  if (spec === undefined) return { volumeId, spec, backing: undefined, problems };
  const repeated = attempt(() => sandbox.volumes.repeated(volumeId, spec));
  const backing = await inspectBacking(spec, config).catch((error: unknown) => {
    problems.push(asShimError(error));
    return undefined;
  });
  if (repeated === undefined) {
    attempt(() => sandbox.volumes.checkSerial(spec.serial));
    if (backing !== undefined) {
      attempt(() => {
        claims.check(backing, `volume ${volumeId}`, !spec.readOnly);
      });
    }
  }
  return { volumeId, spec, backing, problems };
}

/** Reasons that lie in the other volumes of the same plan. */
function clashes(
  volumeId: string,
  spec: VolumeSpec,
  backing: Backing | undefined,
  claimed: Map<string, { readonly volumeId: string; readonly writable: boolean }>,
  serials: Map<string, string>,
): readonly ShimError[] {
  const found: ShimError[] = [];
  const writable = !spec.readOnly;
  const other = backing === undefined ? undefined : claimed.get(backing.identity);
  if (backing !== undefined && other !== undefined && (other.writable || writable)) {
    found.push(
      new ShimError('FAILED_PRECONDITION', `${backing.path} is wanted by volume ${other.volumeId} of the same batch`, {
        reason: 'BACKING_IN_USE',
        metadata: { path: backing.path, holder: other.volumeId },
      }),
    );
  }
  if (backing !== undefined) claimed.set(backing.identity, { volumeId, writable });
  const holder = serials.get(spec.serial);
  if (holder !== undefined) {
    found.push(
      new ShimError('ALREADY_EXISTS', `serial ${spec.serial} is wanted by volume ${holder} of the same batch`, {
        reason: 'SERIAL_IN_USE',
        metadata: { volumeId: holder, serial: spec.serial },
      }),
    );
  }
  serials.set(spec.serial, volumeId);
  return found;
}
