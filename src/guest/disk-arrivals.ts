import type { Uevent } from './uevents.ts';

/** A virtio disk in a uevent's path: the PCI function, the virtio device, the disk (no partition has this path). */
const DISK_PATH = /\/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\/virtio[0-9]+\/block\/(vd[a-z]{1,4})$/;

/** What is known of a PCI address at which a disk of ours is, or was. */
interface Place {
  /** The disk that was announced there and has not left. */
  present: string | undefined;
  tenant: DiskArrival | undefined;
  /**
   * Tenants that ended before their disks were seen to leave, oldest first: the next announcements are theirs. Each is
   * the number of marks that had been asked for by then.
   */
  debts: number[];
}

/**
 * Which disks the guest's kernel has announced, by PCI address: the guest's own name of a disk, without asking anybody.
 *
 * Announcements take their time, so one that comes may be about the disk that was there before. It cannot be told by
 * what it says, but by what is owed: the kernel announces each disk once, and once that it left.
 *
 * INVARIANT: an arrival is `certain` only if, when it began, everything that the kernel had to say of its address was
 * in: the stream was whole (`synced`), and the last disk there was seen to leave, or a mark has come that was asked for
 * after QEMU had shown it to be gone. Others have to be asked about. Addresses where nothing of ours was ever expected
 * are not kept: a guest could name any.
 */
export class DiskArrivals {
  readonly #places = new Map<string, Place>();
  #inSync = false;
  #marks = 0;

  get inSync(): boolean {
    return this.#inSync;
  }

  /** A mark is about to be asked for. @returns what `synced` is to be told when it has come */
  mark(): number {
    this.#marks += 1;
    return this.#marks;
  }

  /**
   * A mark has come: the stream is whole from now on, and what the kernel had said before the mark was asked for has
   * come, or is lost. A disk that QEMU had shown to be gone by then is not spoken of any more.
   */
  synced(mark: number): void {
    this.#inSync = true;
    for (const [address, place] of this.#places) {
      const before = place.debts.length;
      place.debts = place.debts.filter((since) => since >= mark);
      if (place.debts.length < before && place.tenant === undefined) place.present = undefined;
      this.#tidy(address, place);
    }
  }

  /** Something may have been missed: nothing that is still awaited will be believed. What is owed stays owed. */
  lost(): void {
    this.#inSync = false;
    for (const { tenant } of this.#places.values()) tenant?.doubt();
  }

  /** The guest was reset: its new kernel knows nothing of what the last one owed. */
  reset(): void {
    this.lost();
    for (const [address, place] of this.#places) {
      place.present = undefined;
      place.debts = [];
      this.#tidy(address, place);
    }
  }

  /**
   * Listens for the disk that is about to come at an address ("0000:01:1f.0"). Whoever asks ends it when the disk is
   * gone.
   * @param mayBeThere the disk may have been announced before this was asked
   */
  expect(address: string, mayBeThere = false): DiskArrival {
    const place = this.#places.get(address) ?? { present: undefined, tenant: undefined, debts: [] };
    this.#places.set(address, place);
    const arrival = new DiskArrival(() => this.#end(address, place, arrival));
    const clear = place.debts.length === 0 && place.present === undefined && place.tenant === undefined;
    if (!this.#inSync || !clear || mayBeThere) arrival.doubt();
    place.tenant = arrival;
    return arrival;
  }

  take({ action, path, variables }: Uevent): void {
    // What somebody in the guest made the kernel repeat says nothing new.
    if (variables.has('SYNTH_UUID') || (action !== 'add' && action !== 'remove')) return;
    const [, address = '', name] = DISK_PATH.exec(path) ?? [];
    const place = this.#places.get(address);
    if (place === undefined || name === undefined) return;
    const isTenants = place.debts.length === 0;
    if (action === 'add') {
      place.present = name;
      if (isTenants) place.tenant?.came(`/dev/${name}`);
      return;
    }
    place.present = undefined;
    if (isTenants) place.tenant?.left();
    else place.debts.shift();
    this.#tidy(address, place);
  }

  #end(address: string, place: Place, arrival: DiskArrival): void {
    if (place.tenant !== arrival) return;
    place.tenant = undefined;
    if (!arrival.hasLeft) place.debts.push(this.#marks);
    this.#tidy(address, place);
  }

  #tidy(address: string, place: Place): void {
    const empty = place.tenant === undefined && place.debts.length === 0 && place.present === undefined;
    if (empty && this.#places.get(address) === place) this.#places.delete(address);
  }
}

/** One disk that is to come. */
export class DiskArrival {
  /**
   * The device node, once the kernel has announced the disk; undefined when that will not be known from here. Never
   * rejects.
   */
  readonly announced: Promise<string | undefined>;
  readonly #settle: (device: string | undefined) => void;
  readonly #end: () => void;
  #certain = true;
  #hasLeft = false;

  constructor(end: () => void) {
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    this.announced = promise;
    this.#settle = resolve;
    this.#end = end;
  }

  /** False: what is, or was, announced may be about another disk, or about another boot of the guest. */
  get certain(): boolean {
    return this.#certain;
  }

  /** Whether its disk was seen to leave. */
  get hasLeft(): boolean {
    return this.#hasLeft;
  }

  came(device: string): void {
    this.#hasLeft = false;
    this.#settle(device);
  }

  left(): void {
    this.#hasLeft = true;
  }

  doubt(): void {
    this.#certain = false;
    this.#settle(undefined);
  }

  /** The disk is proven to be gone from QEMU. */
  end(): void {
    this.#end();
  }
}
