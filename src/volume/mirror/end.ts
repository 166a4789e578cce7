import { Deadline } from '../../base/deadline.ts';
import type { QmpClient } from '../../qmp/client.ts';
import type { VolumeHost } from '../host.ts';
import { isSwitching } from '../model/operation.ts';
import type { Volume } from '../volume.ts';
import { cancelMirrors, deviceOn, followMirror, mirrorJob } from './job.ts';

/** A copy whose target hangs ends later; the removal goes on meanwhile, and comes back here. */
const END_WAIT_MS = 1000;

/**
 * For a volume that is being removed: has its copies cancelled, waits a while for their end, and sees on which medium
 * the device is as long as it is there.
 */
export async function endMirrors(host: VolumeHost, volume: Volume, qmp: QmpClient): Promise<void> {
  if (volume.otherMedia.length === 0 || volume.isRemoved()) return;
  let cancelled: readonly number[];
  {
    using _held = await volume.mutex.acquire();
    cancelled = await cancelMirrors(qmp, volume);
  }
  const deadline = Deadline.after(END_WAIT_MS);
  for (const number of cancelled) {
    await followMirror(host, volume, number, {
      signal: host.gone,
      progress: () => undefined,
      until: () => deadline.expired,
    });
  }
  using _held = await volume.mutex.acquire();
  if (!volume.isRemoved()) await noteMedium(host, volume, qmp);
}

/** Takes note of the medium that the device was seen to be on once no job can change it any more. */
async function noteMedium(host: VolumeHost, volume: Volume, qmp: QmpClient): Promise<void> {
  for (const { number } of volume.otherMedia) {
    const job = await mirrorJob(qmp, volume, number);
    if (job !== undefined && job.status !== 'concluded') return;
  }
  const on = await deviceOn(qmp, volume);
  if (on === undefined) return;
  if (on !== volume.names.medium) host.volumes.switchMedium(volume, on);
  const { operation } = volume;
  if (operation?.kind !== 'migrate' || !isSwitching(operation)) return;
  const step = { ...operation.step, at: 'copying' as const };
  host.volumes.apply(volume, { kind: 'operation-changed', operation: { ...operation, step } });
}
