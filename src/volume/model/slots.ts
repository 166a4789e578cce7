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
/** Slots of the fence's bridge (fence.ts): no disk sits there, and device number 0 is as good as the others. */
export const FENCE_SEATS = 32;

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

/** A bridge of its own for the devices that a fence plugs and unplugs. */
export const FENCE_BRIDGE: Bridge = { id: 'fence', address: FIRST_BRIDGE_ADDRESS + BRIDGES_MAX };

/** The bridges for volumes of a sandbox of this capacity. */
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

/** What was known of a VM's slots when a device was asked for. */
export interface Asked {
  readonly releases: number;
  readonly passed: number;
}

/**
 * Which slots are taken, and by which generation. A slot is free again only after its removal was proven.
 *
 * A free slot is **settled** when the guest is known to have no request left to let go of it. A guest may still have
 * one after the disk has gone, and it would take the next disk with it (docs/qemu-facts.md). Two devices that went one
 * after the other settle it: the first was asked for after the slot was free, the second after the first had gone.
 * `asking` before a device is asked for, `passed` with its answer once that device has gone.
 */
export class SlotBook {
  readonly capacity: number;
  readonly #holders = new Map<number, number>();
  /** For each slot that was ever freed, which release it was. */
  readonly #freedBy = new Map<number, number>();
  /** Search goes on after the slot taken last, so that a slot that was just freed is used again as late as possible. */
  #next = 0;
  #releases = 0;
  /** Releases up to this one came before a device was asked for that has gone. */
  #passed = 0;
  /** Releases up to this one were in `#passed` when a device was asked for that has gone. */
  #settledUpTo = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get inUse(): number {
    return this.#holders.size;
  }

  /** A free slot, now held by `generation`; undefined when all are taken. Settled ones come first. */
  take(generation: number): Slot | undefined {
    const [index] = this.#free();
    if (index === undefined) return undefined;
    this.#holders.set(index, generation);
    this.#next = (index + 1) % this.capacity;
    return slotAt(index);
  }

  /** The slots that the next `count` takes would give, fewer when there are not so many. */
  preview(count: number): readonly Slot[] {
    return this.#free().slice(0, count).map(slotAt);
  }

  /** Free slots in the order in which they are taken: settled ones in turn, then those that were freed first. */
  #free(): readonly number[] {
    const inTurn = Array.from({ length: this.capacity }, (_, tried) => (this.#next + tried) % this.capacity);
    const free = inTurn.filter((index) => !this.#holders.has(index));
    const unsettled = free.filter((index) => !this.#settled(index));
    return [
      ...free.filter((index) => this.#settled(index)),
      ...unsettled.sort((one, other) => (this.#freedBy.get(one) ?? 0) - (this.#freedBy.get(other) ?? 0)),
    ];
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
    if (this.#holders.get(index) !== generation) return;
    this.#holders.delete(index);
    this.#unsettle(index);
  }

  /** Settled or not is known of no slot: an earlier daemon has worked on this VM. */
  distrust(): void {
    for (let index = 0; index < this.capacity; index += 1) this.#unsettle(index);
  }

  /** Before a device is asked for, for the first time, that sits in a settled slot. */
  asking(): Asked {
    return { releases: this.#releases, passed: this.#passed };
  }

  /** A device that was asked for has gone. */
  passed({ releases, passed }: Asked): void {
    this.#passed = Math.max(this.#passed, releases);
    this.#settledUpTo = Math.max(this.#settledUpTo, passed);
  }

  /** Whether the guest is known to have no request left for what was in this slot before. */
  isSettled(slot: Slot): boolean {
    return this.#settled(slotIndex(slot));
  }

  #settled(index: number): boolean {
    return (this.#freedBy.get(index) ?? 0) <= this.#settledUpTo;
  }

  #unsettle(index: number): void {
    this.#releases += 1;
    this.#freedBy.set(index, this.#releases);
  }
}
