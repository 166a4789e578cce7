import { monotonicMs, sleep, waitFor, type Deadline } from '../base/deadline.ts';
import { ShimError, isShimError } from '../base/errors.ts';
import { listed } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import { frontEndOf } from './front-end/registry.ts';
import type { Drivers, VolumeHost } from './host.ts';

const PAUSE_MIN_MS = 1;
const PAUSE_MAX_MS = 100;
/** A wait is prolonged by about this share of itself because somebody had to look. */
const LATENESS_MAX = 0.02;
/** How often a driver is looked for whose disk the guest's kernel is to announce: it may fail, or the news be lost. */
const LOOK_UNASKED_MS = 100;
/**
 * The same while others are announced: the guest takes its disks one after the other, and the turn of this one will
 * come.
 */
const LOOK_UNASKED_BUSY_MS = 1000;
/** A guest in which no driver has come up for so long is not busy with bringing them up. */
const CALM_MS = 100;
const CALM_WAIT_MAX_MS = 1000;
const OS_RING_FEATURES = ['VIRTIO_RING_F_EVENT_IDX', 'VIRTIO_RING_F_INDIRECT_DESC'] as const;

/** How the driver was seen to be live. */
export type DriverEvidence = 'virtio-status' | 'block-reads';

/** What the watch needs to know of the VM. */
export type WatchedVm = Pick<VolumeHost, 'id' | 'gone' | 'virtioStatus' | 'agentReady'> & {
  readonly link: Pick<VolumeHost['link'], 'ready'>;
};
type WatchedVolume = Parameters<Drivers['untilLive']>[0];

interface Waiting {
  readonly volume: WatchedVolume;
  readonly sinceMs: number;
  readonly deadline: Deadline;
  readonly settle: PromiseWithResolvers<DriverEvidence>;
  /** The guest's kernel will say when it is worth looking. */
  awaitsNews: boolean;
  lookedAtMs: number;
}

/**
 * Waits until guests' drivers are live. QEMU has no event for it, so its view of the device is read: the driver sets
 * DRIVER_OK in the virtio status when its queues are up, and FAILED when it gives up. That status can be had only by a
 * command that QEMU calls experimental. Where this QEMU was not seen to survive it (qemu/trial.ts), or the command
 * fails, the driver's reads are the evidence.
 *
 * Where the guest's kernel announces its disks (guest-events.ts), one look follows the announcement, and hardly any
 * come before: QEMU reads a command byte by byte, at some microseconds each, which a host with few CPUs takes from the
 * guest. What is announced is a reason to look and no proof, since the guest says it.
 *
 * Where it does not, one loop serves all volumes of a VM that are being attached. A guest brings them up in the order
 * in which they came, so each time the loop looks at the first, on to the next for as long as they are live, and at one
 * of the others in turn: a batch costs little more than a single volume does. Each look keeps the guest from QEMU for a
 * moment, so the pauses grow with the time that was waited: a guest that comes up fast is noticed within a millisecond,
 * and one that takes its time is not disturbed.
 */
export class DriverWatch implements Drivers {
  readonly #host: WatchedVm;
  /** In the order in which they came. */
  readonly #waiting = new Set<Waiting>();
  #running: Promise<void> | undefined;
  /** Counts the looks at others than the first. */
  #turn = 0;
  #liveAtMs = Number.NEGATIVE_INFINITY;
  #newsAtMs = Number.NEGATIVE_INFINITY;
  /** Resolved and renewed whenever nobody waits any more. */
  #idle = Promise.withResolvers<void>();
  /** Resolved and renewed when there is news. */
  #news = Promise.withResolvers<void>();

  constructor(host: WatchedVm) {
    this.#host = host;
  }

  /**
   * @param news resolves when it is time to look, with the disk's device node, or with undefined when that will not
   *   be said; left out: it is looked at all the time
   * @throws ShimError FAILED_PRECONDITION / GUEST_DRIVER_FAILED, DEVICE_VANISHED; DEADLINE_EXCEEDED /
   *   GUEST_DRIVER_TIMEOUT
   */
  async untilLive(
    volume: WatchedVolume,
    deadline: Deadline,
    news?: Promise<string | undefined>,
  ): Promise<DriverEvidence> {
    const waiting: Waiting = {
      volume,
      sinceMs: monotonicMs(),
      deadline,
      settle: Promise.withResolvers(),
      awaitsNews: news !== undefined,
      // Nothing can be seen yet: the device has just been plugged.
      lookedAtMs: monotonicMs(),
    };
    this.#waiting.add(waiting);
    void news?.then((device) => {
      if (!this.#waiting.has(waiting)) return;
      waiting.awaitsNews = false;
      if (device !== undefined) this.#newsAtMs = monotonicMs();
      this.#wakeUp();
    });
    this.#wakeUp();
    this.#running ??= this.#run();
    try {
      return await waitFor(waiting.settle.promise, {
        milliseconds: deadline.remainingMs,
        signal: this.#host.gone,
        onTimeout: () => late(this.#host, waiting),
      });
    } finally {
      this.#remove(waiting);
    }
  }

  /**
   * Resolves, after a second at most, when the guest is done with bringing up drivers, as far as this watch knows: none
   * is waited for, or none has come up lately. What the guest's agent is asked before, it answers in the drivers' time.
   */
  async untilCalm(): Promise<void> {
    const endMs = monotonicMs() + CALM_WAIT_MAX_MS;
    while (this.#waiting.size > 0) {
      const leftMs = Math.min(this.#liveAtMs + CALM_MS, endMs) - monotonicMs();
      if (leftMs <= 0) return;
      await Promise.race([this.#idle.promise, sleep(leftMs, this.#host.gone)]);
    }
  }

  /** Looks at those who wait until none is left. Never rejects: what goes wrong is told to who waits. */
  async #run(): Promise<void> {
    while (this.#waiting.size > 0) {
      const { promise: news } = this.#news;
      const worthALook = this.#worthALook();
      if ((await this.#lookAt(worthALook[0])) || (await this.#lookAt(this.#anyOther(worthALook)))) continue;
      using pause = new Pause(this.#pauseMs(), this.#host.gone);
      await Promise.race([pause.over, news]);
    }
    // In the same turn in which nobody was found waiting: whoever comes next starts another loop.
    this.#running = undefined;
  }

  /** Those without news to come; and behind them each of the others that was not looked at for long. */
  #worthALook(): readonly Waiting[] {
    const nowMs = monotonicMs();
    const busy = nowMs - this.#newsAtMs < LOOK_UNASKED_MS;
    const isDue = ({ awaitsNews, lookedAtMs, deadline }: Waiting): boolean => {
      // Whose time is nearly up has no more of it to be left alone.
      const patient = busy && deadline.remainingMs > LOOK_UNASKED_BUSY_MS;
      return awaitsNews && nowMs - lookedAtMs >= (patient ? LOOK_UNASKED_BUSY_MS : LOOK_UNASKED_MS);
    };
    const all = [...this.#waiting];
    return [...all.filter(({ awaitsNews }) => !awaitsNews), ...all.filter(isDue)];
  }

  #wakeUp(): void {
    this.#news.resolve();
    this.#news = Promise.withResolvers();
  }

  /** True when the wait is over, for better or worse. */
  async #lookAt(waiting: Waiting | undefined): Promise<boolean> {
    if (waiting === undefined) return false;
    waiting.lookedAtMs = monotonicMs();
    try {
      const seen = await look(this.#host, await this.#host.link.ready(), waiting.volume);
      if (seen === undefined) return false;
      this.#liveAtMs = monotonicMs();
      waiting.settle.resolve(seen);
    } catch (error) {
      waiting.settle.reject(error);
    }
    this.#remove(waiting);
    return true;
  }

  #anyOther(all: readonly Waiting[]): Waiting | undefined {
    if (all.length < 2) return undefined;
    this.#turn += 1;
    return all[1 + (this.#turn % (all.length - 1))];
  }

  #remove(waiting: Waiting): void {
    this.#waiting.delete(waiting);
    if (this.#waiting.size > 0) return;
    this.#idle.resolve();
    this.#idle = Promise.withResolvers();
  }

  /** The youngest may be late by its share of the time that it has waited. */
  #pauseMs(): number {
    const looked = [...this.#waiting].filter(({ awaitsNews }) => !awaitsNews);
    if (looked.length === 0) return LOOK_UNASKED_MS;
    const youngest = Math.max(...looked.map(({ sinceMs }) => sinceMs));
    return Math.min(Math.max(PAUSE_MIN_MS, (monotonicMs() - youngest) * LATENESS_MAX), PAUSE_MAX_MS);
  }
}

/** A pause that can be cut short. The reason of an abort is told to all who wait by their own waits. */
class Pause implements Disposable {
  readonly over: Promise<void>;
  readonly #cut = new AbortController();

  constructor(milliseconds: number, gone: AbortSignal) {
    this.over = sleep(milliseconds, AbortSignal.any([this.#cut.signal, gone])).catch(() => undefined);
  }

  [Symbol.dispose](): void {
    this.#cut.abort();
  }
}

function late(host: WatchedVm, { volume, sinceMs }: Waiting): ShimError {
  return new ShimError(
    'DEADLINE_EXCEEDED',
    `the guest's driver was not seen to come up on volume ${volume.id} within ${Math.round(monotonicMs() - sinceMs)} ms`,
    { reason: 'GUEST_DRIVER_TIMEOUT', metadata: { sandboxId: host.id, volumeId: volume.id } },
  );
}

async function look(host: WatchedVm, qmp: QmpClient, volume: WatchedVolume): Promise<DriverEvidence | undefined> {
  try {
    if (!host.virtioStatus) return await lookAtReads(host, qmp, volume);
    return await lookAtStatus(qmp, volume).catch(async (error: unknown) => {
      if (!isQmpError(error)) throw error;
      // An experimental command that fails shows neither that the device has gone nor that it is not live.
      return await lookAtReads(host, qmp, volume);
    });
  } catch (error) {
    // Looking changes nothing, so a connection that broke under it, or a lost reply, is no reason to give up: the next
    // look shows as much.
    if (isShimError(error) && (error.reason === 'QMP_LOST' || error.reason === 'QMP_REPLY_TIMEOUT')) return undefined;
    throw error;
  }
}

/**
 * Whether a driver of the guest's is live on the device now: of a disk that the guest's kernel does not list, another
 * of its programs may be the driver (vfio). Where the virtio status is not to be had at all, nobody knows, and the
 * guest's own list has to do.
 * @throws what QmpClient.run throws, unless the device is not there any more: a look that failed says nothing
 */
export async function isDriven(
  host: Pick<VolumeHost, 'virtioStatus'>,
  qmp: QmpClient,
  volume: WatchedVolume,
): Promise<boolean> {
  if (!host.virtioStatus) return false;
  try {
    return (await lookAtStatus(qmp, volume)) !== undefined;
  } catch (error) {
    if (isShimError(error) && error.reason === 'GUEST_DRIVER_FAILED') return false;
    if (isQmpError(error) && !(await listed(qmp, 'device')).has(volume.names.device)) return false;
    throw error;
  }
}

async function lookAtStatus(qmp: QmpClient, volume: WatchedVolume): Promise<DriverEvidence | undefined> {
  const path = frontEndOf().statusPath(volume.names.device);
  const { status, 'guest-features': accepted } = await qmp.run('x-query-virtio-status', { path });
  const bits = new Set(status.statuses.map((text) => text.split(':', 1)[0]));
  if (bits.has('VIRTIO_CONFIG_S_FAILED')) {
    throw new ShimError(
      'FAILED_PRECONDITION',
      `the guest's driver gave up on volume ${volume.id} (out of interrupt vectors, or the disk's parameters do not suit it); see the guest's console`,
      { reason: 'GUEST_DRIVER_FAILED', metadata: { volumeId: volume.id } },
    );
  }
  if (!bits.has('VIRTIO_CONFIG_S_DRIVER_OK')) return undefined;
  // SeaBIOS drives disks too while it looks for something to boot, and lets go of them. It takes none of the ring
  // features that every operating system's driver takes.
  const features = new Set(accepted.transports.map((text) => text.split(':', 1)[0]));
  const operatingSystem = OS_RING_FEATURES.some((feature) => features.has(feature));
  return operatingSystem ? 'virtio-status' : undefined;
}

/**
 * Where the virtio status cannot be asked: a live Linux driver reads the disk at once, looking for partitions.
 * @throws ShimError FAILED_PRECONDITION / DEVICE_VANISHED when QEMU does not list the device
 */
async function lookAtReads(
  host: WatchedVm,
  qmp: QmpClient,
  volume: WatchedVolume,
): Promise<DriverEvidence | undefined> {
  const { device } = volume.names;
  const all = await qmp.run('query-blockstats', {});
  const own = all.find((entry) => entry.qdev?.includes(`/${device}/`) === true);
  if (own === undefined && !(await listed(qmp, 'device')).has(device)) {
    throw new ShimError('FAILED_PRECONDITION', `the device of volume ${volume.id} vanished from QEMU`, {
      reason: 'DEVICE_VANISHED',
      metadata: { volumeId: volume.id },
    });
  }
  // Reads alone could be the firmware's; an agent that answers has left the firmware behind.
  return host.agentReady && own !== undefined && own.stats.rd_operations > 0 ? 'block-reads' : undefined;
}
