/**
 * What a volume's front end gets of what a VM has little of: the guest's interrupt vectors, and QEMU's I/O threads.
 * Decided once, when the volume is attached, and kept with it.
 */
import { z } from 'zod';
import { SLOTS_PER_BRIDGE, VOLUME_CAPACITY_MAX, bridgesFor } from './slots.ts';

/** How the disk interrupts the guest; pure data. */
export const placementSchema = z
  .object({
    /**
     * Entries of the device's MSI-X table: `queues + 1` is one for each virtqueue and one for changes of the
     * configuration, 2 is one for all virtqueues together, 0 is no MSI-X: the disk shares an interrupt line, which
     * costs no vector of its own.
     */
    vectors: z.int(),
    /**
     * Ids of the iothreads that serve it; none: QEMU's main loop does. Several: its virtqueues are spread over them.
     */
    iothreads: z.array(z.string()).readonly(),
  })
  .readonly();
export type Placement = z.infer<typeof placementSchema>;

export type InterruptMode = 'per-queue' | 'shared' | 'line';

/**
 * Vectors that an x86 Linux has for devices, on each CPU. Measured on Debian's 6.1: 1 vCPU drives 96 disks of two
 * vectors, 2 vCPUs about 150 of three or two; then drivers fail with ENOSPC (-28).
 */
const VECTORS_PER_VCPU = 192;
/** For the other devices, and for the eight interrupt lines: each takes a vector when its first disk comes. */
const VECTORS_RESERVED = 16;
const VECTORS_SHARED = 2;

/** Interrupt vectors that a guest with so many vCPUs has for volumes. */
export function vectorBudget(vcpus: number): number {
  return vcpus * VECTORS_PER_VCPU - VECTORS_RESERVED;
}

export function interruptMode({ vectors }: Placement, queues: number): InterruptMode {
  if (vectors === 0) return 'line';
  return vectors > queues ? 'per-queue' : 'shared';
}

/** Why a sandbox does not take more volumes, in a sentence. */
export function capacityLimit({
  vcpus,
  volumeCapacity,
}: {
  readonly vcpus: number;
  readonly volumeCapacity: number;
}): string {
  const bridges = bridgesFor(volumeCapacity).length;
  const slots = `${bridges} bridges of ${SLOTS_PER_BRIDGE} slots, as volume_capacity asks; ${VOLUME_CAPACITY_MAX} is the most`;
  const withVectors = Math.floor(vectorBudget(vcpus) / VECTORS_SHARED);
  if (withVectors >= volumeCapacity) return slots;
  return `${slots}. ${vcpus} vCPUs have interrupt vectors for ${withVectors} volumes, the rest share interrupt lines`;
}

/** "iothread0" and so on: ids of the objects that a sandbox is launched with. */
export function iothreadIds(count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `iothread${index}`);
}

/**
 * Who has which vectors and iothreads of one VM.
 *
 * A volume has a vector for each of its queues as long as every free slot would still get at least the two of the
 * shared mode; then volumes share one over their queues; and when the vectors are used up, they use interrupt lines. So
 * the number of volumes is limited by slots only, and those that come first, or are alone, are the fastest.
 */
export class PlacementBook {
  readonly #vcpus: number;
  readonly #capacity: number;
  readonly #iothreads: readonly string[];
  readonly #held = new Map<number, { readonly cost: number; readonly placement: Placement }>();

  constructor(machine: { readonly vcpus: number; readonly capacity: number; readonly iothreads: number }) {
    this.#vcpus = machine.vcpus;
    this.#capacity = machine.capacity;
    this.#iothreads = iothreadIds(machine.iothreads);
  }

  /** A copy that may be tried out. */
  copy(): PlacementBook {
    const copied = new PlacementBook({
      vcpus: this.#vcpus,
      capacity: this.#capacity,
      iothreads: this.#iothreads.length,
    });
    for (const [generation, held] of this.#held) copied.#held.set(generation, held);
    return copied;
  }

  get vectors(): number {
    return vectorBudget(this.#vcpus);
  }

  get vectorsInUse(): number {
    return [...this.#held.values()].reduce((sum, { cost }) => sum + cost, 0);
  }

  /** @param mapping this QEMU can spread the virtqueues of one disk over several iothreads */
  take(generation: number, queues: number, mapping: boolean): Placement {
    const placement = { vectors: this.#chooseVectors(queues), iothreads: this.#chooseIothreads(queues, mapping) };
    this.claim(generation, queues, placement);
    return placement;
  }

  /** Notes what a volume has that the journal, or QEMU, knows of. */
  claim(generation: number, queues: number, placement: Placement): void {
    this.#held.set(generation, { cost: this.#costOf(placement, queues), placement });
  }

  release(generation: number): void {
    this.#held.delete(generation);
  }

  #chooseVectors(queues: number): number {
    const own = { vectors: queues + 1, iothreads: [] };
    const free = this.vectors - this.vectorsInUse;
    const others = Math.max(0, this.#capacity - this.#held.size - 1);
    if (free >= this.#costOf(own, queues) + others * VECTORS_SHARED) return own.vectors;
    // With one queue the guest would take the two vectors as its own, on every CPU; see #costOf.
    const shared = { vectors: VECTORS_SHARED, iothreads: [] };
    return free >= this.#costOf(shared, queues) ? shared.vectors : 0;
  }

  /** Linux spreads the vectors of queues over all CPUs and reserves one on each, also for a single queue. */
  #costOf(placement: Placement, queues: number): number {
    switch (interruptMode(placement, queues)) {
      case 'per-queue':
        return this.#vcpus + 1;
      case 'shared':
        return VECTORS_SHARED;
      case 'line':
        return 0;
    }
  }

  /** The least used first. QEMU wants a virtqueue for each iothread that it maps. */
  #chooseIothreads(queues: number, mapping: boolean): readonly string[] {
    const load = new Map(this.#iothreads.map((id) => [id, 0]));
    for (const { placement } of this.#held.values()) {
      for (const id of placement.iothreads) load.set(id, (load.get(id) ?? 0) + 1 / placement.iothreads.length);
    }
    const byLoad = this.#iothreads.toSorted((one, other) => (load.get(one) ?? 0) - (load.get(other) ?? 0));
    return byLoad.slice(0, mapping ? queues : 1);
  }
}
