import { monotonicMs, sleep } from '../base/deadline.ts';
import { invalidArgument, isShimError, type ShimError } from '../base/errors.ts';
import type { Permit } from '../callers/gate.ts';
import type { GetStatsResponse } from '../grpc/generated/qshim/v1/GetStatsResponse.ts';
import type { StatsHandlers } from '../grpc/generated/qshim/v1/Stats.ts';
import { streaming, unary, type Edge } from '../grpc/handlers.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { VolumeCounters } from '../volume/stats/counters.ts';
import type { VolumeSeen } from '../volume/stats/looks.ts';
import { STATS_PERIOD_MS_MIN, type Seen } from '../volume/stats/rates.ts';
import type { VolumeSnapshot } from '../volume/volume.ts';
import { statsMessage } from './convert-stats.ts';
import { Visibility } from './visibility.ts';

/** Which volumes a call is about. */
interface Wanted {
  /** Empty: of all sandboxes. */
  readonly sandboxId: string;
  /** Empty: all that are not removed. */
  readonly volumeId: string;
}

/** @param leaving aborts when the daemon is about to end */
export function statsHandlers(manager: SandboxManager, edge: Edge, leaving: AbortSignal): StatsHandlers {
  return {
    Get: unary(edge, 'Stats.Get', async ({ fresh, ...wanted }, { signal, permit }) => {
      const look = async (sandbox: Sandbox): Promise<void> => {
        const known = volumesOf(manager, wanted, sandbox.id).every((volume) => sandbox.stats.of(volume) !== undefined);
        if (fresh || !known) await sandbox.stats.look({ details: fresh, signal });
      };
      const { notLookedAt, volumes } = await lookAt(manager, wanted, permit, look);
      // What was asked for of one sandbox is an error when it cannot be had.
      const [first] = notLookedAt;
      if (first !== undefined && wanted.sandboxId !== '') throw first.problem;
      return answer(notLookedAt, volumes, ({ before }) => before);
    }),
    Watch: streaming(edge, 'Stats.Watch', async ({ periodMs: asked, ...wanted }, send, context) => {
      const periodMs = periodOf(asked, manager.statsPeriodMs);
      const signal = AbortSignal.any([context.signal, leaving]);
      let last = new Map<string, Seen<VolumeCounters>>();
      for (;;) {
        const dueMs = monotonicMs() + periodMs;
        const look = (sandbox: Sandbox): Promise<void> => sandbox.stats.look({ details: false, signal });
        const { notLookedAt, volumes } = await lookAt(manager, wanted, context.permit, look);
        signal.throwIfAborted();
        await send(answer(notLookedAt, volumes, (_seen, volume) => last.get(keyOf(volume))));
        last = new Map(
          volumes.flatMap(({ volume, seen }) => (seen === undefined ? [] : [[keyOf(volume), seen.counters]])),
        );
        await sleep(Math.max(0, dueMs - monotonicMs()), signal);
      }
    }),
  };
}

/** @throws ShimError INVALID_ARGUMENT */
function periodOf(askedMs: number, ownMs: number): number {
  const periodMs = askedMs === 0 ? ownMs : askedMs;
  if (periodMs === 0) throw invalidArgument('period_ms', 0, 'is needed: the daemon has no period of its own');
  if (periodMs >= STATS_PERIOD_MS_MIN) return periodMs;
  throw invalidArgument('period_ms', askedMs, `must be at least ${STATS_PERIOD_MS_MIN}`);
}

interface Failed {
  readonly sandboxId: string;
  readonly problem: ShimError;
}

interface Told {
  readonly volume: VolumeSnapshot;
  readonly seen: VolumeSeen | undefined;
}

/**
 * Looks at the sandboxes that are meant, all at once, and gives what was seen of their volumes.
 * @throws ShimError INVALID_ARGUMENT; NOT_FOUND / SANDBOX_NOT_FOUND, VOLUME_NOT_FOUND
 */
async function lookAt(
  manager: SandboxManager,
  wanted: Wanted,
  permit: Permit,
  look: (sandbox: Sandbox) => Promise<void>,
): Promise<{ readonly notLookedAt: readonly Failed[]; readonly volumes: readonly Told[] }> {
  const { sandboxId, volumeId } = wanted;
  if (sandboxId === '' && volumeId !== '') throw invalidArgument('sandbox_id', '', 'is needed with volume_id');
  if (volumeId !== '') manager.volume(sandboxId, volumeId);
  const visible = new Visibility(manager, permit);
  const ids = sandboxId === '' ? manager.list({}).map(({ id }) => id) : [sandboxId];
  const sandboxes = ids.filter((id) => sandboxId !== '' || visible.shows(id)).map((id) => manager.sandbox(id));
  const failed = await Promise.all(
    sandboxes.map(async (sandbox) => {
      const problem = await look(sandbox).then(() => undefined, shimError);
      return problem === undefined ? [] : [{ sandboxId: sandbox.id, problem }];
    }),
  );
  return {
    notLookedAt: failed.flat(),
    volumes: sandboxes.flatMap((sandbox) =>
      sandbox.volumes
        .snapshots()
        .filter((volume) => isWanted(volume, volumeId))
        .map((volume) => ({ volume, seen: isGone(volume) ? undefined : sandbox.stats.of(volume) })),
    ),
  };
}

/** The refusal that it is. @throws what is none */
function shimError(error: unknown): ShimError {
  if (isShimError(error)) return error;
  throw error;
}

function volumesOf(manager: SandboxManager, { volumeId }: Wanted, sandboxId: string): readonly VolumeSnapshot[] {
  return manager.volumes(sandboxId).filter((volume) => isWanted(volume, volumeId) && !isGone(volume));
}

function isWanted(volume: VolumeSnapshot, volumeId: string): boolean {
  return volumeId === '' ? !isGone(volume) : volume.volumeId === volumeId;
}

function isGone({ state }: VolumeSnapshot): boolean {
  return state.state === 'removed';
}

function keyOf({ sandboxId, generation }: VolumeSnapshot): string {
  return `${sandboxId}/${generation}`;
}

function answer(
  notLookedAt: readonly Failed[],
  volumes: readonly Told[],
  before: (seen: VolumeSeen, volume: VolumeSnapshot) => Seen<VolumeCounters> | undefined,
): GetStatsResponse {
  return {
    volumes: volumes.map(({ volume, seen }) => statsMessage(volume, seen, seen && before(seen, volume))),
    notLookedAt: notLookedAt.map(({ sandboxId, problem: { reason, message } }) => ({ sandboxId, reason, message })),
  };
}
