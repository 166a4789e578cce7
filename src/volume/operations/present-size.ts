import type { VolumeHost } from '../host.ts';
import { inspectSource } from '../spec.ts';
import type { Volume } from '../volume.ts';

/**
 * Bytes that the guest would see of a volume's source as it is now: a device or a file that grew since the attach has
 * more than the volume. Changes nothing.
 * @throws ShimError as the source's module does when it looks
 */
export async function presentSize(host: VolumeHost, volume: Volume): Promise<number> {
  const { spec, resolved } = volume;
  // Without the mount nobody asks whether it is empty, which may mean to read all of it.
  const { sizeBytes } = await inspectSource({ ...spec, mount: undefined }, host.config, resolved);
  return sizeBytes;
}
