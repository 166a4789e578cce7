import { waitFor } from '../base/deadline.ts';
import { ShimError, invalidArgument } from '../base/errors.ts';
import { asShimError } from '../qmp/errors.ts';
import { beginAdmission, reasonsAgainst, type Admission, type Admitting, type Request } from './admission.ts';
import type { Seat } from './front-end/module.ts';
import { frontEndOf } from './front-end/registry.ts';
import { namesFor } from './model/names.ts';
import { pciPath } from './model/slots.ts';
import { aioModes, attachSteps, objectsOf, type PlanStep } from './plan.ts';
import { moduleOf } from './source/registry.ts';
import type { VolumeSpec } from './spec.ts';
import type { VolumeStore, Wanted } from './store.ts';
import type { Volume, VolumeSnapshot } from './volume.ts';

/**
 * Several volumes in one call. A batch takes no lock over its members (locking rule 3): each goes its own way, at the
 * same time, so that their commands share the QMP connection, their records the journal's writes, and their waits the
 * guest.
 */

export interface BatchResult {
  readonly volumeId: string;
  readonly volume: VolumeSnapshot | undefined;
  readonly problem: ShimError | undefined;
}

/** What is done with one member, and where its end is seen. */
export interface BatchHost {
  readonly id: string;
  readonly volumes: VolumeStore;
  /** @param begun is told of the volume, unless one that is there already answers the request */
  attach(request: Request, begun: (volume: Volume) => void): Promise<VolumeSnapshot>;
  detach(volumeId: string, force: boolean): Promise<VolumeSnapshot>;
}

/**
 * Attaches all, at once.
 * @param options.atomic if one fails, those that this call attached are detached again, and their problem is
 *   BATCH_UNDONE
 * @param options.callerWait ends only the caller's waiting, never a batch half-way
 */
export async function attachMany(
  host: BatchHost,
  requests: readonly Request[],
  options: { readonly atomic: boolean; readonly callerWait: AbortSignal },
): Promise<readonly BatchResult[]> {
  // What others have attached, before this call or meanwhile, is not this call's to undo.
  const own = new Set<Volume>();
  const work = (async () => {
    const results = await Promise.all(
      requests.map((request) =>
        settled(
          host,
          request.volumeId,
          host.attach(request, (volume) => void own.add(volume)),
        ),
      ),
    );
    if (!options.atomic || results.every(({ problem }) => problem === undefined)) return results;
    return await Promise.all(results.map((result) => undo(host, result, own)));
  })();
  work.catch(() => undefined); // The caller may go before the end.
  return await waitFor(work, { signal: options.callerWait });
}

async function undo(host: BatchHost, result: BatchResult, own: ReadonlySet<Volume>): Promise<BatchResult> {
  const volume = host.volumes.find(result.volumeId);
  if (result.problem !== undefined || volume === undefined || !own.has(volume)) return result;
  const detached = await settled(host, result.volumeId, host.detach(result.volumeId, true));
  const still = detached.problem === undefined ? '' : `; detaching it: ${detached.problem.message}`;
  return {
    ...detached,
    problem: new ShimError('ABORTED', `another volume of the batch failed, so this one was detached again${still}`, {
      reason: 'BATCH_UNDONE',
      metadata: { sandboxId: host.id, volumeId: result.volumeId },
    }),
  };
}

/** Detaches all, at once. */
export async function detachMany(
  host: BatchHost,
  volumeIds: readonly string[],
  force: boolean,
): Promise<readonly BatchResult[]> {
  return await Promise.all(volumeIds.map((volumeId) => settled(host, volumeId, host.detach(volumeId, force))));
}

async function settled(host: BatchHost, volumeId: string, work: Promise<VolumeSnapshot>): Promise<BatchResult> {
  try {
    return { volumeId, volume: await work, problem: undefined };
  } catch (error) {
    return { volumeId, volume: host.volumes.find(volumeId)?.snapshot(), problem: asShimError(error) };
  }
}

/** @throws ShimError INVALID_ARGUMENT for an empty or too long batch, or an id that is named twice */
export function checkBatch(volumeIds: readonly string[], max: number): void {
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
  readonly steps: readonly PlanStep[];
  readonly problems: readonly ShimError[];
}

/**
 * What attachMany would do: slots, block graph, exact commands, and every reason why it would fail. Looks at files;
 * sends nothing to QEMU. Between a plan and the deed things may change.
 */
export async function planAttach(sandbox: Admitting, requests: readonly Request[]): Promise<readonly VolumePlan[]> {
  const { volumes } = sandbox;
  const slots = volumes.previewSlots(requests.length);
  const place = volumes.previewPlacements();
  let generation = volumes.nextGeneration;
  const wanted: Wanted[] = [];
  const plans: VolumePlan[] = [];
  for (const request of requests) {
    const { volumeId } = request;
    const admission = beginAdmission(request);
    const problems: ShimError[] = [];
    for await (const problem of reasonsAgainst(sandbox, request, admission, wanted)) problems.push(problem);
    const { spec, source } = admission;
    const there = volumes.find(volumeId);
    if (spec === undefined || (there !== undefined && !there.isRemoved())) {
      const path = spec === undefined || there === undefined ? '' : pciPath(there.identity.slot);
      plans.push({ volumeId, pciPath: path, blockGraph: [], steps: [], problems });
      continue;
    }
    const slot = slots[wanted.length];
    wanted.push({ volumeId, spec, source });
    if (slot === undefined) plans.push({ volumeId, pciPath: '', blockGraph: [], steps: [], problems });
    else {
      const seat = { slot, placement: place(generation, spec.queues) };
      const relay = volumes.relaySocket(spec.source, generation);
      plans.push(planOf({ ...admission, spec }, { seat, generation, relay }, problems));
      generation += 1;
    }
  }
  return plans;
}

function planOf(
  { volumeId, spec, source }: Admission & { readonly spec: VolumeSpec },
  { seat, generation, relay }: { readonly seat: Seat; readonly generation: number; readonly relay: string | undefined },
  problems: readonly ShimError[],
): VolumePlan {
  const names = namesFor(volumeId, generation);
  const resolved = source?.resolved ?? spec.source;
  const [aio] = aioModes(spec, source?.endsInSector ?? true);
  const creates = spec.encryption?.kind === 'host-luks' && spec.encryption.format === 'if_empty';
  const objects = objectsOf({ spec, resolved, names, seat, relay }, aio, creates);
  return {
    volumeId,
    pciPath: pciPath(seat.slot),
    blockGraph: [
      `${frontEndOf().driver} ${names.device}`,
      names.root,
      names.protocol,
      moduleOf(resolved).describe(resolved),
    ],
    steps: attachSteps(spec, volumeId, objects),
    problems,
  };
}
