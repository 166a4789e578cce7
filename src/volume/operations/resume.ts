import type { VolumeHost } from '../host.ts';
import type { Volume } from '../volume.ts';
import { lookAtKeySlots } from './key-slots.ts';
import { moveAgain } from './migrate.ts';
import { hold } from './limits.ts';
import { growAgain } from './resize.ts';
import { operateAgain } from './slot.ts';

/** Takes up the operation that an earlier daemon was in the midst of. One of this daemon sees to itself (slot.ts). */
export async function resumeOperation(host: VolumeHost, volume: Volume): Promise<void> {
  const { operation } = volume;
  if (operation === undefined || volume.operating !== undefined) return;
  switch (operation.kind) {
    case 'resize':
      await operateAgain(host, volume, () => growAgain(host, volume, operation));
      return;
    case 'limit':
      await operateAgain(host, volume, () => hold(host, volume, operation));
      return;
    case 'change-keys':
      await operateAgain(host, volume, () => lookAtKeySlots(host, volume));
      return;
    case 'migrate':
      await operateAgain(host, volume, (run) => moveAgain(host, volume, run));
  }
}
