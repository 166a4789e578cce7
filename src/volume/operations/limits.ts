import { isDeepStrictEqual } from 'node:util';
import { waitFor } from '../../base/deadline.ts';
import { isShimError, ShimError } from '../../base/errors.ts';
import type { VolumeHost } from '../host.ts';
import type { Draw } from '../model/draw.ts';
import { UNLIMITED, type IoLimits } from '../model/limits.ts';
import type { Volume, VolumeSnapshot } from '../volume.ts';
import { operate } from './slot.ts';

/** What is to decide on a volume's I/O: limits of its own, or a budget. */
interface Wanted {
  readonly limits: IoLimits;
  readonly draw?: Draw | undefined;
}

/**
 * Holds the I/O of an attached volume to `limits`, instead of whatever it was held to, and all volumes of its group
 * with it; or to its part of a budget. The snapshot tells what QEMU showed afterwards. The same again is seen to be so,
 * and changes nothing.
 * @throws ShimError FAILED_PRECONDITION: VOLUME_NOT_ATTACHED, OPERATION_IN_PROGRESS, LIMITS_FAILED; as Budgets.refusal
 */
export async function limitVolume(
  host: VolumeHost,
  volume: Volume,
  { limits, draw, callerWait }: Wanted & { readonly callerWait: AbortSignal },
): Promise<VolumeSnapshot> {
  if (volume.state.state !== 'attached') {
    throw new ShimError('FAILED_PRECONDITION', `volume ${volume.id} is ${volume.state.state}, not attached`, {
      reason: 'VOLUME_NOT_ATTACHED',
      metadata: { volumeId: volume.id },
    });
  }
  const wanted = { limits, ...(draw && { draw }) };
  const refusal = draw?.budget === volume.draw?.budget ? undefined : draw && host.ioBudgets.refusal(draw.budget);
  if (refusal !== undefined) throw refusal;
  const work = (): Promise<void> => hold(host, volume, wanted);
  const done = operate(host, volume, { kind: 'limit', ...wanted }, { work, again: work });
  done.catch(() => undefined); // The caller may go; what was begun is finished.
  await waitFor(done, { signal: callerWait });
  return volume.snapshot();
}

/**
 * Also for one whose outcome was not seen, or that an earlier daemon began: it looks first.
 * @throws ShimError as Throttles.set and Budgets.admit
 */
export async function hold(host: VolumeHost, volume: Volume, { limits, draw }: Wanted): Promise<void> {
  const { draw: before } = volume;
  host.volumes.apply(volume, { kind: 'drawn', draw });
  try {
    await (draw === undefined ? host.throttles.set(volume, limits) : host.ioBudgets.admit(volume));
  } catch (error) {
    // What is not known to have failed is seen to once more.
    const failed = isShimError(error, 'FAILED_PRECONDITION') || isShimError(error, 'NOT_FOUND');
    if (failed) host.volumes.apply(volume, { kind: 'drawn', draw: before });
    throw error;
  }
}

/**
 * For an attach: what its spec says, seen before anybody is told ATTACHED.
 * @throws ShimError as hold
 */
export async function limitAttached(host: VolumeHost, volume: Volume): Promise<void> {
  const { limits = UNLIMITED, draw } = volume.spec;
  if (draw !== undefined) await hold(host, volume, { limits, draw });
  else if (!isDeepStrictEqual(limits, volume.limits ?? UNLIMITED)) await host.throttles.set(volume, limits);
}
