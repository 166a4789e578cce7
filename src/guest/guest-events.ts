import { randomUUID } from 'node:crypto';
import { Backoff } from '../base/backoff.ts';
import type { GuestBudget } from '../base/budget.ts';
import { Deadline, monotonicMs, sleep } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { DiskArrivals, type DiskArrival } from './disk-arrivals.ts';
import type { GuestAgent } from './agent.ts';
import { QuickLook } from './quick-look.ts';
import { UeventStream, type Uevent } from './uevents.ts';

/** A kernel that answers to its name; writing "change UUID" there makes it announce that id (since Linux 4.13). */
const MARK_PATH = '/sys/devices/virtual/mem/null/uevent';
const MARK_WITHIN_MS = 5000;
/** Until it is asked for again, at first. */
const MARK_PAUSE_MS = 200;
/** Where announcements come, the guest is not asked again sooner. */
const AGAIN_MS = 1000;
/** A guest that does not announce anything is asked again when a disk comes, at pauses that are doubled. */
const RETRY_MIN_MS = 2000;
const RETRY_MAX_MS = 60_000;

/** What the sandbox lends. */
export interface EventHost {
  readonly agent: GuestAgent;
  /** What the guest may cost. */
  readonly budget: GuestBudget;
  readonly log: Logger;
  readonly files: { readonly ueventSocket: string };
  /** QEMU is gone, or the daemon leaves it. */
  readonly ended: AbortSignal;
  /** Counts the resets of the guest that were seen. */
  readonly boot: number;
  /** The agent has answered in this boot. */
  readonly agentReady: boolean;
  inBackground(purpose: string, work: Promise<void>): void;
}

/**
 * The guest kernel's announcements, on a port of their own. They make waiting for a disk cheap, and are never needed: a
 * guest without a writer on that port is looked at and asked instead (driver-wait.ts, disk-names.ts).
 */
export class GuestEvents implements AsyncDisposable {
  readonly #disks = new DiskArrivals();
  readonly #quickLook = new QuickLook();
  readonly #host: EventHost;
  #stream: UeventStream | undefined;
  #closed = false;
  #beginning: Promise<void> | undefined;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  readonly #backoff = new Backoff(RETRY_MIN_MS, RETRY_MAX_MS);

  constructor(host: EventHost) {
    this.#host = host;
  }

  /**
   * Listens, once the agent of this boot has answered. The kernel is made to announce a random id: when that has come,
   * the whole way is known to work, and everything older has come before it. Never rejects; why it does not work is in
   * the log.
   */
  begin(): Promise<void> {
    this.#beginning ??= this.#begin().finally(() => {
      this.#beginning = undefined;
      if (this.#disks.inSync) this.#backoff.reset();
      this.#retryAtMs = monotonicMs() + (this.#disks.inSync ? AGAIN_MS : this.#backoff.next());
    });
    return this.#beginning;
  }

  /** A disk is about to come, at this address. */
  expect(address: string, mayBeThere: boolean): DiskArrival {
    const arrival = this.#disks.expect(address, mayBeThere);
    // Whoever passes the announcements on may have come meanwhile; and what an address is owed may never come.
    if (!arrival.certain) this.#beginAgain();
    return arrival;
  }

  /**
   * A disk whose driver is live was not announced in time. A mark tells whether nothing comes any more, or it is the
   * disk that is slow: Linux announces a disk once it has looked for partitions on it.
   */
  missed(arrival: DiskArrival): void {
    this.#host.log.debug('a disk was not announced in time');
    arrival.doubt();
    this.#beginAgain();
  }

  #beginAgain(): void {
    if (!this.#host.agentReady || monotonicMs() < this.#retryAtMs) return;
    this.#host.inBackground('uevents', this.begin());
  }

  async #begin(): Promise<void> {
    const { ended } = this.#host;
    let boot: number;
    do {
      ({ boot } = this.#host);
      await this.#beginIn(boot);
      // Reset meanwhile: the new boot of the guest begins anew.
    } while (this.#host.boot !== boot && !ended.aborted);
  }

  async #beginIn(boot: number): Promise<void> {
    const { agent, log, ended } = this.#host;
    try {
      const stream = await this.#connected();
      if (stream === undefined) return;
      const uuid = randomUUID();
      const mark = this.#disks.mark();
      const deadline = Deadline.after(MARK_WITHIN_MS);
      const marked = stream.marked(uuid, { milliseconds: MARK_WITHIN_MS, signal: ended });
      let works = false;
      // The port's reader may begin a moment after the agent: what it does not see is thrown away.
      const backoff = new Backoff(MARK_PAUSE_MS, MARK_WITHIN_MS);
      while (!works && !deadline.expired) {
        await agent.writeFile(MARK_PATH, `change ${uuid}`);
        const waitMs = Math.min(backoff.next(), deadline.remainingMs);
        works = await Promise.race([marked, sleep(waitMs, ended).then(() => false)]);
      }
      if (this.#host.boot !== boot || ended.aborted) return;
      if (works) this.#disks.synced(mark);
      else {
        this.#disks.lost();
        log.info('uevents of the guest do not come; disks are looked for');
      }
    } catch (error) {
      if (!ended.aborted) log.info({ problem: messageOf(error) }, 'uevents of the guest are not to be had');
    }
  }

  /**
   * At which of some PCI addresses, as sysfs writes them, the guest has seen a disk that nobody uses: of no other is
   * anything said. Never rejects, and takes half a second at most.
   */
  async unused(addresses: readonly string[]): Promise<ReadonlySet<string>> {
    const stream = this.#stream;
    if (stream === undefined || !this.#disks.inSync) return new Set();
    return await this.#quickLook.of(stream, addresses, this.#host.ended);
  }

  /** The guest was reset: its kernel has announced nothing yet. */
  reset(): void {
    this.#disks.reset();
    this.#quickLook.reset();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#stream?.[Symbol.asyncDispose]();
  }

  /** Undefined for a VM that was started without such a port, by an older daemon. */
  async #connected(): Promise<UeventStream | undefined> {
    if (this.#stream?.open === true) return this.#stream;
    const { files, log, budget } = this.#host;
    const listener = {
      event: (event: Uevent) => (event.action === 'answer' ? this.#quickLook : this.#disks).take(event),
      lost: () => this.#disks.lost(),
    };
    try {
      const stream = await UeventStream.connect(files.ueventSocket, log, listener, budget);
      this.#stream = stream;
      if (this.#closed) await stream[Symbol.asyncDispose]();
      return this.#closed ? undefined : stream;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      return undefined;
    }
  }
}
