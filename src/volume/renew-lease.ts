import { ShimError } from '../base/errors.ts';
import type { VolumeHost } from './host.ts';
import { begun, type Lease } from './model/lease.ts';
import type { Volume } from './volume.ts';

/**
 * Gives a volume another lease in place of the one that it has, if any; it may be shorter. Ends when it is in the
 * journal. A volume that is on its way out is not kept: what its guest has let go of would come back as another disk.
 * @throws ShimError FAILED_PRECONDITION: VOLUME_DETACHING, VOLUME_PENDING, VOLUME_NOT_ATTACHED; UNAVAILABLE /
 *   JOURNAL_WRITE_FAILED: this daemon keeps it, and the next one may not know of it
 */
export async function renewLease(host: VolumeHost, volume: Volume, lease: Lease): Promise<void> {
  refuse(host, volume);
  const given = volume.state.state === 'attached' ? begun(lease, Date.now()) : lease;
  host.volumes.apply(volume, { kind: 'lease-given', lease: given });
  await host.commit();
}

function refuse(host: VolumeHost, { id, state }: Volume): void {
  const metadata = { sandboxId: host.id, volumeId: id };
  const refusal = (reason: 'VOLUME_DETACHING' | 'VOLUME_PENDING' | 'VOLUME_NOT_ATTACHED', why: string): ShimError =>
    new ShimError('FAILED_PRECONDITION', `the lease of volume ${id} cannot be renewed: ${why}`, { reason, metadata });
  switch (state.state) {
    case 'attached':
      return;
    case 'pending':
      if (state.phase === 'undoing') throw refusal('VOLUME_PENDING', 'its failed attach is being undone');
      return;
    case 'detaching':
      throw refusal('VOLUME_DETACHING', 'it is being detached; attach it again once it is removed');
    case 'removed':
      throw refusal('VOLUME_NOT_ATTACHED', 'it is removed');
  }
}
