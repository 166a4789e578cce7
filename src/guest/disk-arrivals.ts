import type { Uevent } from './uevents.ts';

/** A virtio disk in a uevent's path: the PCI function, the virtio device, the disk (no partition has this path). */
const DISK_PATH = /\/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\/virtio[0-9]+\/block\/(vd[a-z]{1,4})$/;

/** What is known of one PCI address. */
interface Place {
  /** The disk that was announced there and has not left. */
  present: string | undefined;
  tenant: DiskArrival | undefined;
  /** Tenants that ended before their disks were seen to leave: the next announcements are theirs. */
  owing: number;
}

/**
 * Which disks the guest's kernel has announced, by PCI address: the guest's own name of a disk, without asking anybody.
 *
 * Announcements take their time, so one that comes may be about the disk that was there before. It cannot be told by what it
 * says, but by what is owed: the kernel announces each disk once, and once that it left.
 *
 * INVARIANT: an arrival is `certain` only if, when it began, everything that the kernel had to say of its address was in: the stream
 * was whole (`synced`), and the last disk there was seen to come and to leave. Others have to be asked about.
 */
export class DiskArrivals {
  readonly #places = new Map<string, Place>();
  #inSync = false;

  get inSync(): boolean {
    return this.#inSync;
  }

  /** From now on everything that the kernel announces comes here: what it said before has come. */
  synced(): void {
    this.#inSync = true;
  }

  /** Something may have been missed, or the guest was reset: nothing that is still awaited will be believed. */
  lost(): void {
    this.#inSync = false;
    for (const { tenant } of this.#places.values()) tenant?.doubt();
    this.#places.clear();
  }

  /**
   * Listens for the disk that is about to come at an address ("0000:01:1f.0"). Whoever asks ends it when the disk is gone.
   * @param mayBeThere the disk may have been announced before this was asked
   */
  expect(address: string, mayBeThere = false): DiskArrival {
    const place = this.#placeAt(address);
    const arrival = new DiskArrival(() => this.#end(address, place, arrival));
    const clear = place.owing === 0 && place.present === undefined && place.tenant === undefined;
    if (!this.#inSync || !clear || mayBeThere) arrival.doubt();
    place.tenant = arrival;
    return arrival;
  }

  take({ action, path, variables }: Uevent): void {
    // What somebody in the guest made the kernel repeat says nothing new.
    if (variables.has('SYNTH_UUID') || (action !== 'add' && action !== 'remove')) return;
    const [, address, name] = DISK_PATH.exec(path) ?? [];
    if (address === undefined || name === undefined) return;
    const place = this.#placeAt(address);
    if (action === 'remove') {
      place.present = undefined;
      place.owing = Math.max(0, place.owing - 1);
      return;
    }
    place.present = name;
    if (place.owing === 0) place.tenant?.settle(`/dev/${name}`);
  }

  #end(address: string, place: Place, arrival: DiskArrival): void {
    if (place.tenant !== arrival) return;
    place.tenant = undefined;
    if (place.present !== undefined || !arrival.seen) place.owing += 1;
    if (place.owing === 0 && this.#places.get(address) === place) this.#places.delete(address);
  }

  #placeAt(address: string): Place {
    const place = this.#places.get(address) ?? { present: undefined, tenant: undefined, owing: 0 };
    this.#places.set(address, place);
    return place;
  }
}

/** One disk that is to come. */
export class DiskArrival {
  /** The device node, once the kernel has announced the disk; undefined when that will not be known from here. Never rejects. */
  readonly announced: Promise<string | undefined>;
  readonly #settle: (device: string | undefined) => void;
  readonly #end: () => void;
  #certain = true;
  #seen = false;

  constructor(end: () => void) {
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    this.announced = promise;
    this.#settle = resolve;
    this.#end = end;
  }

  /** Whether its disk was announced. */
  get seen(): boolean {
    return this.#seen;
  }

  /** False: what is, or was, announced may be about another disk, or about another boot of the guest. */
  get certain(): boolean {
    return this.#certain;
  }

  settle(device: string): void {
    this.#seen = true;
    this.#settle(device);
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
