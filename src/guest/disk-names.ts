import { setImmediate } from 'node:timers/promises';
import { monotonicMs } from '../base/deadline.ts';
import { GuestAgentError, type GuestAgent, type GuestDisk } from './agent.ts';
import { findDisk } from './disks.ts';
import { sysfsPci, type DiskIdentity } from './run-script.ts';

/** More than the "uevent" file of a PCI function has. */
const UEVENT_BYTES_MAX = 1024;
/** More than the "stat" file of a disk has: 17 numbers. */
const STAT_BYTES_MAX = 512;
const LETTERS = 26;
/** So many disks are guessed at a time, and one more for each so many disks that a list would name. */
const GUESSES_AT_ONCE = 2;
const DISKS_PER_GUESS = 8;
/**
 * Wrong guesses before all disks are listed: as many as a large batch may cause, or disks that qshim does not know of.
 */
const MISSES_MAX = 64;

/** What lies behind a name: the address of its PCI function, or undefined when there is no such disk. */
interface Look {
  /** When the guest was asked, monotonic. */
  readonly askedMs: number;
  readonly address: Promise<string | undefined>;
}

export interface WantedDisk extends DiskIdentity {
  /** Device nodes of other disks that are known to be there. */
  readonly taken: ReadonlySet<string>;
  /** Monotonic. What was seen before may have been another disk at the same address. */
  readonly sinceMs: number;
}

/**
 * The guest's names of its virtio disks, found at a cost that does not grow with their number.
 *
 * Listing all disks (guest-get-disks) takes the agent longer with each of them. But Linux gives a new virtio disk the
 * lowest free name. So that name is guessed, and the guess is held against what the guest itself says: the "uevent"
 * file of the PCI function behind the disk has its address. Disks that come up together may take each other's guess;
 * what is seen for one of them serves the others. When the guesses lead to nothing, or many disks come at once, the
 * list is asked for.
 */
export class DiskNames {
  readonly #agent: GuestAgent;
  /** The newest look at each name, under way or done; as many as the guest has had disks at once. */
  readonly #looks = new Map<string, Look>();

  /** How many are being looked for now. */
  #finding = 0;
  /** Shared by all who come in one turn of the event loop. */
  #turn: Promise<void> | undefined;
  /** About to be asked for. */
  #list: Promise<readonly GuestDisk[]> | undefined;

  constructor(agent: GuestAgent) {
    this.#agent = agent;
  }

  /**
   * The device node of the disk at an address, e.g. "/dev/vdb"; undefined while the guest has none there, or none that
   * it has read from yet.
   * @throws what GuestAgent.disks throws
   */
  async find(wanted: WantedDisk): Promise<string | undefined> {
    this.#finding += 1;
    try {
      // The others of a batch come in the same turn.
      this.#turn ??= setImmediate().finally(() => (this.#turn = undefined));
      await this.#turn;
      // A guess costs three questions, the list one that takes the guest longer the more disks it has, and serves all
      // who wait for it: for a batch it is the cheaper of the two.
      const many = this.#finding > GUESSES_AT_ONCE + wanted.taken.size / DISKS_PER_GUESS;
      const name =
        (many ? undefined : await this.#guess(wanted)) ?? (await findDisk({ disks: () => this.#listed() }, wanted));
      return name !== undefined && (await this.#isRead(name)) ? name : undefined;
    } finally {
      this.#finding -= 1;
    }
  }

  /** One list for all who want one in this turn: it is asked for once they have all said so. */
  #listed(): Promise<readonly GuestDisk[]> {
    this.#list ??= Promise.resolve().then(() => {
      this.#list = undefined;
      return this.#agent.disks();
    });
    return this.#list;
  }

  async #guess(wanted: WantedDisk): Promise<string | undefined> {
    const address = sysfsPci(wanted.pci);
    for (let index = 0, misses = 0; misses < MISSES_MAX; index += 1) {
      const name = virtioDiskName(index);
      if (wanted.taken.has(`/dev/${name}`)) continue;
      const seen = await this.#look(name, wanted.sinceMs);
      if (seen === address) return `/dev/${name}`;
      // Names are given from the lowest on: behind a free one there are none, unless a disk has left meanwhile.
      if (seen === undefined) break;
      misses += 1;
    }
    return undefined;
  }

  async #look(name: string, sinceMs: number): Promise<string | undefined> {
    const known = this.#looks.get(name);
    if (known !== undefined && known.askedMs >= sinceMs) return await known.address;
    const look: Look = { askedMs: monotonicMs(), address: this.#ask(name) };
    this.#looks.set(name, look);
    const address = await look.address;
    // That a name was free says nothing about the next moment.
    if (address === undefined && this.#looks.get(name) === look) this.#looks.delete(name);
    return address;
  }

  /**
   * Whether Linux has read from a disk. It lists a disk, and makes its node, a moment before anybody can open it; then
   * it looks for partitions (block/genhd.c, device_add_disk), and this is how that shows without opening the disk: the
   * agent has one thread, and whoever opens a disk that is being looked through waits until its storage has answered.
   * An agent that cannot tell says nothing against it.
   */
  async #isRead(device: string): Promise<boolean> {
    try {
      const text = await this.#agent.readFile(`/sys/block/${device.slice('/dev/'.length)}/stat`, STAT_BYTES_MAX);
      // The first field: reads that were completed (Documentation/block/stat.rst).
      return Number(text.toString('latin1').trim().split(/\s+/, 1)[0]) !== 0;
    } catch (error) {
      if (error instanceof GuestAgentError) return true;
      throw error;
    }
  }

  /** Never rejects: an agent that cannot tell, or may not read files, is asked for its list instead. */
  async #ask(name: string): Promise<string | undefined> {
    try {
      // "device" is a link to the virtio device, and above that is the PCI function.
      const text = await this.#agent.readFile(`/sys/block/${name}/device/../uevent`, UEVENT_BYTES_MAX);
      return /^PCI_SLOT_NAME=(\S+)$/m.exec(text.toString('latin1'))?.[1];
    } catch {
      return undefined;
    }
  }
}

/** "vda" to "vdz", then "vdaa" (Linux, drivers/block/virtio_blk.c). */
export function virtioDiskName(index: number): string {
  let letters = '';
  for (let rest = index; rest >= 0; rest = Math.floor(rest / LETTERS) - 1) {
    letters = String.fromCharCode('a'.charCodeAt(0) + (rest % LETTERS)) + letters;
  }
  return `vd${letters}`;
}
