import type { QmpClient } from '../../qmp/client.ts';
import type { DiskSpec } from '../model/disk.ts';
import type { QemuNames } from '../model/names.ts';
import type { DeviceObject } from '../model/objects.ts';
import type { Placement } from '../model/placement.ts';
import type { Slot } from '../model/slots.ts';

/**
 * How a guest sees a volume. The registry (registry.ts) hands the module to plan, driver-wait and recovery:
 *
 *     plan.ts ─ device ─▶ device_add        driver-wait.ts ─ statusPath ─▶ x-query-virtio-status
 *     recover.ts ─ read ─▶ slot, placement and disk of a device that QEMU lists
 */

/** Where a volume goes in its VM. */
export interface Seat {
  readonly slot: Slot;
  readonly placement: Placement;
}

/** What a device shows of how it was made. */
export interface SeenDevice extends Seat {
  readonly disk: Pick<
    DiskSpec,
    'serial' | 'queues' | 'logicalBlockSize' | 'physicalBlockSize' | 'writeErrors' | 'readErrors' | 'discard'
  >;
  /** Every write is flushed. */
  readonly writeThrough: boolean;
}

/** One kind of device through which a guest sees a volume. */
export interface FrontEndModule {
  /** The device's driver in QEMU. */
  readonly driver: string;
  /** The device over the root node, spelled out. */
  device(disk: DiskSpec, names: QemuNames, seat: Seat): DeviceObject;
  /** QOM path of what shows the guest driver's status. */
  statusPath(device: string): string;
  /** QOM path of what QEMU limits and counts the disk's I/O by. */
  backendPath(device: string): string;
  /** Reads a device back from QEMU, when the journal is lost. @throws when it is not one of qshim's */
  read(qmp: Pick<QmpClient, 'run'>, device: string): Promise<SeenDevice>;
}
