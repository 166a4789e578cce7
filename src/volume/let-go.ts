import { unmount, type BusyProcess, type DiskIdentity } from '../guest/disks.ts';
import { closeInGuest, guestEncryption } from './guest-crypt.ts';
import type { VolumeHost } from './host.ts';
import type { Volume } from './volume.ts';

/** What a disk that is in use still has of what qshim made: a refusal may come half-way. */
export interface Left {
  readonly busy: readonly BusyProcess[];
  readonly open: boolean;
  readonly mountedAt: readonly string[];
}

/**
 * Takes away in the guest what qshim made there of a volume: the mount, and the mapping below it. Detach and the undo
 * of an attach both do.
 *
 * @returns undefined when the guest has let go
 * @throws ShimError as unmount and closeLuks2
 */
export async function letGo(
  host: VolumeHost,
  volume: Volume,
  pci: DiskIdentity['pci'],
  options: { readonly force: boolean; readonly timeoutMs: number },
): Promise<Left | undefined> {
  const { mount, serial } = volume.spec;
  if (guestEncryption(volume) !== undefined) {
    const result = await closeInGuest(host, volume, pci, options);
    return result.done ? undefined : result;
  }
  if (mount === undefined) return undefined;
  const result = await unmount(host.agent, { mountPoint: mount.mountPoint, pci, serial, ...options });
  if (!result.unmounted) return { ...result, open: false };
  host.volumes.apply(volume, { kind: 'mounted', mount: false });
  return undefined;
}
