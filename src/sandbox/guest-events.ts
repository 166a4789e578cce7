import { randomUUID } from 'node:crypto';
import { monotonicMs } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import { DiskArrivals, type DiskArrival } from '../guest/disk-arrivals.ts';
import { UeventStream } from '../guest/uevents.ts';
import type { Sandbox } from './sandbox.ts';

/** A kernel that answers to its name; writing "change UUID" there makes it announce that id (since Linux 4.13). */
const MARK_PATH = '/sys/devices/virtual/mem/null/uevent';
const MARK_WITHIN_MS = 5000;
/** A guest that does not announce anything is asked again when a disk comes, at pauses that are doubled. */
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 60_000;

/** What the sandbox lends. */
export type EventHost = Pick<Sandbox, 'agent' | 'log' | 'files' | 'ended' | 'boot' | 'inBackground' | 'agentReady'>;

/**
 * The guest kernel's announcements, on a port of their own. They make waiting for a disk cheap, and are never needed: a guest
 * without a writer on that port is looked at and asked instead (driver-wait.ts, disk-names.ts).
 */
export class GuestEvents implements AsyncDisposable {
  readonly #disks = new DiskArrivals();
  readonly #host: EventHost;
  #stream: UeventStream | undefined;
  #closed = false;
  #beginning: Promise<void> | undefined;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #retryPauseMs = RETRY_MIN_MS;

  constructor(host: EventHost) {
    this.#host = host;
  }

  /**
   * Listens, once the agent of this boot has answered. The kernel is made to announce a random id: when that has come, the whole
   * way is known to work, and everything older has come before it. Never rejects; why it does not work is in the log.
   */
  begin(): Promise<void> {
    this.#beginning ??= this.#begin().finally(() => {
      this.#beginning = undefined;
      this.#retryAtMs = monotonicMs() + this.#retryPauseMs;
      this.#retryPauseMs = this.#disks.inSync ? RETRY_MIN_MS : Math.min(this.#retryPauseMs * 2, RETRY_MAX_MS);
    });
    return this.#beginning;
  }

  /** A disk is about to come, at this address. */
  expect(address: string, mayBeThere: boolean): DiskArrival {
    // Whoever passes the announcements on may have come meanwhile.
    if (!this.#disks.inSync && this.#host.agentReady && monotonicMs() > this.#retryAtMs) {
      this.#host.inBackground('uevents', this.begin());
    }
    return this.#disks.expect(address, mayBeThere);
  }

  /** A disk whose driver is live was not announced: whoever passes the announcements on has ended, or begun anew. */
  missed(): void {
    this.#host.log.info('a disk was not announced by the guest; listening anew');
    this.#disks.lost();
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
      const marked = stream.marked(uuid, { milliseconds: MARK_WITHIN_MS, signal: ended });
      await agent.writeFile(MARK_PATH, `change ${uuid}`);
      const works = await marked;
      if (this.#host.boot !== boot || ended.aborted) return;
      if (works) this.#disks.synced();
      else log.info('uevents of the guest do not come; disks are looked for');
    } catch (error) {
      if (!ended.aborted) log.info({ problem: messageOf(error) }, 'uevents of the guest are not to be had');
    }
  }

  /** The guest was reset: its kernel has announced nothing yet. */
  reset(): void {
    this.#disks.lost();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#stream?.[Symbol.asyncDispose]();
  }

  /** Undefined for a VM that was started without such a port, by an older daemon. */
  async #connected(): Promise<UeventStream | undefined> {
    if (this.#stream?.open === true) return this.#stream;
    const { files, log } = this.#host;
    const listener = {
      event: this.#disks.take.bind(this.#disks),
      lost: () => this.#disks.lost(),
    };
    try {
      const stream = await UeventStream.connect(files.ueventSocket, log, listener);
      this.#stream = stream;
      if (this.#closed) await stream[Symbol.asyncDispose]();
      return this.#closed ? undefined : stream;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      return undefined;
    }
  }
}
