import { z } from 'zod';

/**
 * Where volumes sit: conventional PCI bridges on pcie.0, 31 hot-pluggable slots each. A `pcie-root-port` takes one
 * device only; `pci-bridge` with `shpc=off` is handled by ACPI hotplug and takes 31 (facts measured on QEMU 7.2).
 */

export const SLOTS_PER_BRIDGE = 31;
/** Device number of the first bridge on pcie.0; the rest follow. */
export const FIRST_BRIDGE_ADDRESS = 0x10;
export const BRIDGES_MAX = 7;
export const VOLUME_CAPACITY_MAX = SLOTS_PER_BRIDGE * BRIDGES_MAX;

const bridgeSchema = z
  .object({
    /** QEMU's id of the bridge and thus of its bus. */
    id: z.string(),
    /** Device number on pcie.0. */
    address: z.int(),
  })
  .readonly();
export type Bridge = z.infer<typeof bridgeSchema>;

export const slotSchema = z
  .object({
    bridge: bridgeSchema,
    /** Device number on the bridge's bus, 1 to 31. */
    device: z.int().min(1).max(SLOTS_PER_BRIDGE),
  })
  .readonly();
export type Slot = z.infer<typeof slotSchema>;

/** The bridges that a sandbox of this capacity is launched with. */
export function bridgesFor(capacity: number): readonly Bridge[] {
  return Array.from({ length: Math.ceil(capacity / SLOTS_PER_BRIDGE) }, (_, index) => ({
    id: `bridge${index}`,
    address: FIRST_BRIDGE_ADDRESS + index,
  }));
}

/** Slot number `index` (from 0) of a sandbox. */
export function slotAt(index: number): Slot {
  const bridge = Math.floor(index / SLOTS_PER_BRIDGE);
  return {
    bridge: { id: `bridge${bridge}`, address: FIRST_BRIDGE_ADDRESS + bridge },
    device: 1 + (index % SLOTS_PER_BRIDGE),
  };
}

/** The inverse of slotAt. */
export function slotIndex(slot: Slot): number {
  return (slot.bridge.address - FIRST_BRIDGE_ADDRESS) * SLOTS_PER_BRIDGE + slot.device - 1;
}

/** "BRIDGE/DEVICE" in hex, as Kata's PCI paths are written. */
export function pciPath(slot: Slot): string {
  return `${hex2(slot.bridge.address)}/${hex2(slot.device)}`;
}

/** QEMU parses the `addr` property as hex; a decimal number would put "10" on slot 16. */
export function qemuAddress(device: number): string {
  return `0x${device.toString(16)}`;
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** Which slots are taken, and by which generation. A slot is free again only after its removal was proven. */
export class SlotBook {
  readonly capacity: number;
  readonly #holders = new Map<number, number>();
  /** Search goes on after the slot taken last, so that a slot that was just freed is used again as late as possible. */
  #next = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get inUse(): number {
    return this.#holders.size;
  }

  /** A free slot, now held by `generation`; undefined when all are taken. */
  take(generation: number): Slot | undefined {
    for (let tried = 0; tried < this.capacity; tried += 1) {
      const index = (this.#next + tried) % this.capacity;
      if (this.#holders.has(index)) continue;
      this.#holders.set(index, generation);
      this.#next = (index + 1) % this.capacity;
      return slotAt(index);
    }
    return undefined;
  }

  /** The slots that the next `count` takes would give, fewer when there are not so many. */
  preview(count: number): readonly Slot[] {
    const free: Slot[] = [];
    for (let tried = 0; tried < this.capacity && free.length < count; tried += 1) {
      const index = (this.#next + tried) % this.capacity;
      if (!this.#holders.has(index)) free.push(slotAt(index));
    }
    return free;
  }

  /** Marks a slot as held, when its holder is known from the journal or from QEMU. False when another holds it. */
  claim(slot: Slot, generation: number): boolean {
    const index = slotIndex(slot);
    const holder = this.#holders.get(index);
    if (holder !== undefined && holder !== generation) return false;
    this.#holders.set(index, generation);
    return true;
  }

  /** Frees a slot; without effect when another generation holds it. */
  release(slot: Slot, generation: number): void {
    const index = slotIndex(slot);
    if (this.#holders.get(index) === generation) this.#holders.delete(index);
  }
}
