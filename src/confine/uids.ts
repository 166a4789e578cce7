import { readFile, readdir } from 'node:fs/promises';
import { ShimError } from '../base/errors.ts';

/** User ids, both ends included. Each is a group id too. */
export interface UidRange {
  readonly first: number;
  readonly last: number;
}

/** @param text FIRST-LAST, as the configuration has checked it */
export function parseUidRange(text: string): UidRange {
  const [first = '', last = ''] = text.split('-');
  return { first: Number(first), last: Number(last) };
}

/**
 * The user ids of sandboxes: each goes to one QEMU at a time, and comes again as late as possible.
 *
 * INVARIANT: an id that a process of this host has is given to nobody: those that lived when this was made are taken,
 * whether their sandboxes can be adopted or not.
 */
export class Uids {
  readonly #range: UidRange;
  readonly #taken: Set<number>;
  #next: number;

  /**
   * @param inUse ids that processes have now
   * @param begin where in the range to begin, from 0 to 1
   */
  constructor(range: UidRange, inUse: Iterable<number> = [], begin = Math.random()) {
    this.#range = range;
    this.#taken = new Set(inUse);
    this.#next = range.first + Math.floor(begin * (range.last - range.first + 1));
  }

  /** @throws ShimError RESOURCE_EXHAUSTED / CONFINE_UIDS_IN_USE */
  take(): number {
    const { first, last } = this.#range;
    const size = last - first + 1;
    for (let step = 0; step < size; step += 1) {
      const uid = first + ((this.#next - first + step) % size);
      if (this.#taken.has(uid)) continue;
      this.#taken.add(uid);
      this.#next = uid + 1;
      return uid;
    }
    throw new ShimError('RESOURCE_EXHAUSTED', `all ${size} user ids of confine_uids are in use`, {
      reason: 'CONFINE_UIDS_IN_USE',
      metadata: { first: String(first), last: String(last) },
    });
  }

  /** One that an adopted QEMU has. */
  hold(uid: number): void {
    this.#taken.add(uid);
  }

  free(uid: number): void {
    this.#taken.delete(uid);
  }
}

/** Which ids of the range processes of this host have, as any of their four user ids (proc_pid_status(5)). */
export async function uidsOfProcesses({ first, last }: UidRange): Promise<ReadonlySet<number>> {
  const found = new Set<number>();
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    // Processes end while they are looked at.
    const status = await readFile(`/proc/${name}/status`, 'utf8').catch(() => '');
    for (const text of /^Uid:\s+(.*)$/m.exec(status)?.[1]?.split(/\s+/) ?? []) {
      const uid = Number(text);
      if (uid >= first && uid <= last) found.add(uid);
    }
  }
  return found;
}
