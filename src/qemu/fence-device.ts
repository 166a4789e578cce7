import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';

/** What is plugged as a fence (volume/fence.ts): no driver of a guest takes it. */
export const FENCE_DEVICE = 'pci-testdev';

/**
 * Whether this QEMU was built with the device that fences need.
 * @throws what `QmpClient.run` throws, but for the answer that there is no such device
 */
export async function hasFenceDevice(qmp: Pick<QmpClient, 'run'>): Promise<boolean> {
  try {
    await qmp.run('device-list-properties', { typename: FENCE_DEVICE });
    return true;
  } catch (error) {
    if (isQmpError(error, 'DeviceNotFound')) return false;
    throw error;
  }
}
