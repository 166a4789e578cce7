import type { Slot } from './model/slots.ts';
import type { QmpClient } from '../qmp/client.ts';

/** Address of a PCI function as the guest's kernel counts them. */
export interface GuestPciAddress {
  readonly domain: number;
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
}

/**
 * Bus numbers are given by the guest's firmware, not by QEMU. They are read from the bridges' own registers
 * (query-pci), once for each boot of the guest.
 */
export class GuestAddresses {
  readonly #busOfBridge = new Map<string, number>();

  /** Forgets everything: the guest has been reset and will number its buses anew. */
  forget(): void {
    this.#busOfBridge.clear();
  }

  /** Where the guest sees the slot; undefined while its bridge has no number yet. */
  async of(qmp: QmpClient, slot: Slot): Promise<GuestPciAddress | undefined> {
    if (!this.#busOfBridge.has(slot.bridge.id)) await this.#read(qmp);
    const bus = this.#busOfBridge.get(slot.bridge.id);
    return bus === undefined ? undefined : { domain: 0, bus, slot: slot.device, function: 0 };
  }

  async #read(qmp: QmpClient): Promise<void> {
    const buses = await qmp.run('query-pci');
    for (const device of buses.flatMap((bus) => bus.devices)) {
      const secondary = device.pci_bridge?.bus.secondary;
      // A bridge that the firmware has not numbered yet reports 0.
      if (device.qdev_id !== '' && secondary !== undefined && secondary > 0) {
        this.#busOfBridge.set(device.qdev_id, secondary);
      }
    }
  }
}

/** "0000:01:1f.0", as Linux writes it. */
export function formatAddress(address: GuestPciAddress): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
  return `${hex(address.domain, 4)}:${hex(address.bus, 2)}:${hex(address.slot, 2)}.${address.function.toString(16)}`;
}
