import { isDeepStrictEqual } from 'node:util';
import { waitFor } from '../../base/deadline.ts';
import { ShimError } from '../../base/errors.ts';
import type { VolumeHost } from '../host.ts';
import { UNLIMITED, type IoLimits } from '../model/limits.ts';
import type { Volume, VolumeSnapshot } from '../volume.ts';
import { operate } from './slot.ts';

/**
 * Holds the I/O of an attached volume to `limits`, instead of whatever it was held to; all volumes of its group with
 * it. The snapshot tells what QEMU showed afterwards. The same again is seen to be so, and changes nothing.
 * @throws ShimError FAILED_PRECONDITION: VOLUME_NOT_ATTACHED, OPERATION_IN_PROGRESS, LIMITS_FAILED
 */
export async function limitVolume(
  host: VolumeHost,
  volume: Volume,
  { limits, callerWait }: { readonly limits: IoLimits; readonly callerWait: AbortSignal },
): Promise<VolumeSnapshot> {
  if (volume.state.state !== 'attached') {
    throw new ShimError('FAILED_PRECONDITION', `volume ${volume.id} is ${volume.state.state}, not attached`, {
      reason: 'VOLUME_NOT_ATTACHED',
      metadata: { volumeId: volume.id },
    });
  }
  const again = (): Promise<void> => limitAgain(host, volume, limits);
  const work = operate(host, volume, { kind: 'limit', limits }, { work: again, again });
  work.catch(() => undefined); // The caller may go; what was begun is finished.
  await waitFor(work, { signal: callerWait });
  return volume.snapshot();
}

/** Also for one whose outcome was not seen, or that an earlier daemon began: it looks first. */
export async function limitAgain(host: VolumeHost, volume: Volume, limits: IoLimits): Promise<void> {
  await host.throttles.set(volume, limits);
}

/**
 * For an attach: what its spec says, seen before anybody is told ATTACHED.
 * @throws ShimError as Throttles.set
 */
export async function limitAttached(host: VolumeHost, volume: Volume): Promise<void> {
  const { limits = UNLIMITED } = volume.spec;
  if (!isDeepStrictEqual(limits, volume.limits ?? UNLIMITED)) await host.throttles.set(volume, limits);
}
