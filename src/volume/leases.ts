import { Backoff } from '../base/backoff.ts';
import { Deadline, sleep } from '../base/deadline.ts';
import { messageOf } from '../base/errors.ts';
import { detachVolume } from './detach.ts';
import type { VolumeHost } from './host.ts';
import { leftMs, warningMs } from './model/lease.ts';
import type { Cause } from './model/state.ts';
import type { Volume } from './volume.ts';

/**
 * Keeps the time of leases (model/lease.ts), and has volumes detached that nobody has renewed. Nothing is taken from a
 * guest that has not let go of it, unless the operator has configured that:
 *
 *     ended ─▶ detach, which asks the guest ─┬─ gone
 *       ▲                                    └─ held: told, asked again after a while that doubles ─┐
 *       │                                                                                           │
 *       └─────────── lease_fence = force: told, and lease_fence_ms later, detach by force ◀─────────┘
 */

/** A wait is looked at anew after so long at most: no timer takes more than some days. */
const LOOK_MS = 3_600_000;

const CAUSE: Cause = { reason: 'LEASE_ENDED', message: 'the lease of the volume was not renewed' };
const NOT_RUNNING = 'asked once the VM runs';

/** The leases of one VM's volumes. */
export class Leases {
  readonly #host: VolumeHost;
  readonly #kept = new Map<Volume, AbortController>();

  constructor(host: VolumeHost) {
    this.#host = host;
  }

  /** The end of the volume's lease is another one, or it has none any more. */
  changed(volume: Volume): void {
    this.#keep(volume, 0);
  }

  /** Takes up those of an earlier daemon. None ends before its holder could have renewed it. */
  adopt(): void {
    const { volumes, config } = this.#host;
    for (const volume of volumes.all()) this.#keep(volume, config.lease_grace_ms);
  }

  #keep(volume: Volume, graceMs: number): void {
    this.#kept.get(volume)?.abort();
    this.#kept.delete(volume);
    const { lease } = volume;
    const { gone } = this.#host;
    if (lease?.untilMs === undefined || volume.isRemoved() || gone.aborted) return;
    const other = new AbortController();
    this.#kept.set(volume, other);
    const work = this.#run(volume, graceMs, AbortSignal.any([gone, other.signal])).catch((error: unknown) => {
      if (!other.signal.aborted) throw error;
    });
    this.#host.inBackground('lease', work);
  }

  /** @param other aborted as another lease takes the place of this one, the volume is removed, or the VM is gone */
  async #run(volume: Volume, graceMs: number, other: AbortSignal): Promise<void> {
    const { lease } = volume;
    if (lease === undefined) return;
    const { config } = this.#host;
    const now = Date.now();
    const missed = leftMs(lease, now) === 0;
    // From here on by the monotonic clock: the wall clock may jump.
    const end = Deadline.after(Math.max(leftMs(lease, now), graceMs));
    const { forceAtMs } = lease;
    const force = forceAtMs === undefined ? undefined : Deadline.after(Math.max(forceAtMs - now, graceMs));
    if (missed || lease.warned !== true) {
      if (!missed) await before(end, warningMs(lease, config.lease_warn_ms), other);
      this.#host.volumes.apply(volume, { kind: 'lease-ending', leftMs: end.remainingMs, missed });
      this.#host.commitSoon();
    }
    await before(end, 0, other);
    // It is not in use yet: its end is that of an attach.
    while (volume.state.state === 'pending') await sleep(config.lease_retry_ms, other);
    this.#host.volumes.apply(volume, { kind: 'lease-ended' });
    this.#host.commitSoon();
    await this.#takeAway(volume, force, other);
  }

  async #takeAway(volume: Volume, announced: Deadline | undefined, other: AbortSignal): Promise<void> {
    const { config, volumes } = this.#host;
    let force = announced;
    let told = '';
    let stoodStill = false;
    const backoff = new Backoff(config.lease_retry_ms, config.lease_retry_max_ms);
    for (;;) {
      // A guest that stands still can neither let go nor refuse: its time has not begun.
      const asked = this.#host.runState === 'running';
      // One that stood still is asked once more before anything is taken from it.
      const byForce = config.lease_fence === 'force' && force?.expired === true && !stoodStill;
      const why = asked ? await this.#ask(volume, byForce, other) : this.#standsStill();
      other.throwIfAborted();
      // Of a VM that stands still once: nothing changes until it runs.
      if (asked || told !== why) volumes.apply(volume, { kind: 'lease-held', why });
      told = why;
      stoodStill = !asked;
      if (asked && force === undefined && config.lease_fence === 'force') {
        force = Deadline.after(config.lease_fence_ms);
        volumes.apply(volume, { kind: 'lease-force', inMs: config.lease_fence_ms });
        this.#host.commitSoon();
      }
      const pause = asked ? backoff.next() : config.lease_retry_ms;
      await sleep(force === undefined || force.expired ? pause : Math.min(pause, force.remainingMs), other);
    }
  }

  #standsStill(): string {
    return `the VM is ${this.#host.runState || 'not seen to run'}, and its guest is ${NOT_RUNNING}`;
  }

  /** @returns why the volume is still there; when it is not, `other` is aborted */
  async #ask(volume: Volume, force: boolean, other: AbortSignal): Promise<string> {
    const { config, volumes } = this.#host;
    if (force) volumes.apply(volume, { kind: 'lease-forced' });
    try {
      await detachVolume(this.#host, volume, {
        force,
        timeoutMs: config.detach_timeout_ms,
        callerWait: other,
        because: { cause: CAUSE, holds: () => !other.aborted },
      });
      return 'it was removed';
    } catch (error) {
      return messageOf(error);
    }
  }
}

/** Waits until so long before the end. */
async function before(end: Deadline, milliseconds: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    const left = end.remainingMs - milliseconds;
    if (left <= 0) break;
    await sleep(Math.min(left, LOOK_MS), signal);
  }
  signal.throwIfAborted();
}
