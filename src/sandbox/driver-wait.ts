import { monotonicMs, sleep, waitFor, type Deadline } from '../base/deadline.ts';
import { ShimError, isShimError } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { Volume } from './volume.ts';
import type { VolumeHost } from './vm.ts';

const POLL_MIN_MS = 2;
const POLL_MAX_MS = 100;
const OS_RING_FEATURES = ['VIRTIO_RING_F_EVENT_IDX', 'VIRTIO_RING_F_INDIRECT_DESC'] as const;

/** How the driver was seen to be live. */
export type DriverEvidence = 'virtio-status' | 'block-reads';

/**
 * Waits until the guest's driver is live on the disk. QEMU has no event for it, so its view of the device is read:
 * the driver sets DRIVER_OK in the virtio status when its queues are up, and FAILED when it gives up.
 * @throws ShimError FAILED_PRECONDITION / GUEST_DRIVER_FAILED, DEVICE_VANISHED; DEADLINE_EXCEEDED / GUEST_DRIVER_TIMEOUT
 */
export async function awaitDriver(host: VolumeHost, volume: Volume, deadline: Deadline): Promise<DriverEvidence> {
  const startedMs = monotonicMs();
  for (let pauseMs = POLL_MIN_MS; ; pauseMs = Math.min(pauseMs * 1.5, POLL_MAX_MS)) {
    const late = (): ShimError =>
      new ShimError(
        'DEADLINE_EXCEEDED',
        `the guest's driver was not seen to come up on volume ${volume.id} within ${Math.round(monotonicMs() - startedMs)} ms`,
        { reason: 'GUEST_DRIVER_TIMEOUT', metadata: { sandboxId: host.id, volumeId: volume.id } },
      );
    const qmp = await waitFor(host.link.ready(), { milliseconds: deadline.remainingMs, onTimeout: late });
    const seen = await look(host, qmp, volume);
    if (seen !== undefined) return seen;
    if (deadline.expired) throw late();
    await sleep(Math.min(pauseMs, deadline.remainingMs), host.gone);
  }
}

async function look(host: VolumeHost, qmp: QmpClient, volume: Volume): Promise<DriverEvidence | undefined> {
  try {
    if (host.virtioStatus) return await lookAtStatus(qmp, volume);
    // Reads alone could be the firmware's; an agent that answers has left the firmware behind.
    return host.agentReady ? await lookAtReads(qmp, volume) : undefined;
  } catch (error) {
    // Looking changes nothing, so a connection that broke under it, or a lost reply, is no reason to give up: the next
    // look shows as much.
    if (isShimError(error) && (error.reason === 'QMP_LOST' || error.reason === 'QMP_REPLY_TIMEOUT')) return undefined;
    if (!isQmpError(error)) throw error;
    throw new ShimError('FAILED_PRECONDITION', `the device of volume ${volume.id} vanished from QEMU`, {
      reason: 'DEVICE_VANISHED',
      metadata: { volumeId: volume.id },
      cause: error,
    });
  }
}

async function lookAtStatus(qmp: QmpClient, volume: Volume): Promise<DriverEvidence | undefined> {
  const path = `/machine/peripheral/${volume.names.device}/virtio-backend`;
  const { status, 'guest-features': accepted } = await qmp.run('x-query-virtio-status', { path });
  const bits = new Set(status.statuses.map((text) => text.split(':', 1)[0]));
  if (bits.has('VIRTIO_CONFIG_S_FAILED')) {
    throw new ShimError(
      'FAILED_PRECONDITION',
      `the guest's driver gave up on volume ${volume.id} (out of interrupt vectors, or the disk's parameters do not suit it); see the guest's console`,
      { reason: 'GUEST_DRIVER_FAILED', metadata: { volumeId: volume.id } },
    );
  }
  if (!bits.has('VIRTIO_CONFIG_S_DRIVER_OK')) return undefined;
  // SeaBIOS drives disks too while it looks for something to boot, and lets go of them. It takes none of the ring
  // features that every operating system's driver takes.
  const features = new Set(accepted.transports.map((text) => text.split(':', 1)[0]));
  const operatingSystem = OS_RING_FEATURES.some((feature) => features.has(feature));
  return operatingSystem ? 'virtio-status' : undefined;
}

/** Without x-query-virtio-status: a live Linux driver reads the disk at once, looking for partitions. */
async function lookAtReads(qmp: QmpClient, volume: Volume): Promise<DriverEvidence | undefined> {
  const all = await qmp.run('query-blockstats', {});
  const own = all.find((entry) => entry.qdev?.includes(`/${volume.names.device}/`) === true);
  return own !== undefined && own.stats.rd_operations > 0 ? 'block-reads' : undefined;
}
