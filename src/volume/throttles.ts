import { isDeepStrictEqual } from 'node:util';
import { ShimError, messageOf } from '../base/errors.ts';
import { BoundedMutex } from '../base/mutex.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import { frontEndOf } from './front-end/registry.ts';
import type { Limiter, VolumeHost } from './host.ts';
import { isLimited, limitsSeen, limitsText, throttleOf, UNLIMITED, type IoLimits } from './model/limits.ts';
import type { Volume } from './volume.ts';

/**
 * The I/O limits of one VM's disks, in QEMU:
 *
 *     attach.ts (settle), operations/limits.ts ─▶ set ─▶ look, block_set_io_throttle, look ─▶ `limited`
 *     reconcile.ts ─▶ settleAll: what QEMU has against the records
 *
 * QEMU keeps them above the block graph, by the front end's back end: they go with the disk through everything that is
 * done below, and jobs of QEMU's own are not held to them. A `throttle` filter node is never made: over the disk of an
 * iothread it ends QEMU.
 *
 * INVARIANT: one set at a time in a VM, from its first look to its last: volumes of one group change each other. The
 * turn is held over QMP commands only, and nothing else is taken meanwhile.
 */
export class Throttles implements Limiter {
  readonly #host: VolumeHost;
  readonly #turn = new BoundedMutex('I/O limits', 0);
  #looked = false;

  constructor(host: VolumeHost) {
    this.#host = host;
  }

  /**
   * Holds a volume's disk, and all of its group, to `limits`, and takes note of what QEMU then shows, of every volume.
   * What is so already is not set again.
   * @throws ShimError FAILED_PRECONDITION: LIMITS_FAILED, VOLUME_NOT_ATTACHED (it has no device any more); as QmpLink
   */
  async set(volume: Volume, limits: IoLimits): Promise<void> {
    using _turn = await this.#turn.acquire();
    const { config, link, gone } = this.#host;
    const qmp = await link.within(config.qmp_reply_timeout_ms, gone);
    const before = await this.#look(qmp);
    if (!before.has(volume)) throw withoutDevice(volume);
    if (!isDeepStrictEqual(before.get(volume), limits)) await send(qmp, volume, limits);
    const seen = this.#note(await this.#look(qmp)).get(volume);
    if (seen === undefined) throw withoutDevice(volume);
    if (!isDeepStrictEqual(seen, limits)) throw limitsFailed(volume, `QEMU shows ${limitsText(seen)} afterwards`);
  }

  /** Whether what QEMU holds the disks of this VM to was looked at by this daemon. */
  get looked(): boolean {
    return this.#looked;
  }

  /**
   * Holds volumes that draw on a budget to their parts of it, as `set` does for one. Those that do not any more, when
   * their turn comes, are left alone.
   * @throws ShimError as `set`; UNAVAILABLE / QMP_LOST while there is no connection
   */
  async share(parts: ReadonlyMap<Volume, IoLimits>): Promise<void> {
    const budgets = new Map([...parts.keys()].map((volume) => [volume, volume.draw?.budget]));
    using _turn = await this.#turn.acquire();
    const qmp = this.#host.link.current;
    const ours = [...parts].filter(([volume]) => volume.draw?.budget === budgets.get(volume) && !volume.isRemoved());
    await Promise.all(
      ours.map(async ([volume, limits]) => {
        if (!isDeepStrictEqual(volume.limits, limits)) await send(qmp, volume, limits);
      }),
    );
    const seen = this.#note(await this.#look(qmp));
    for (const [volume, limits] of ours) {
      const now = seen.get(volume);
      if (now !== undefined && !isDeepStrictEqual(now, limits) && volume.draw !== undefined) {
        throw limitsFailed(volume, `QEMU shows ${limitsText(now)} afterwards`);
      }
    }
  }

  /**
   * For a connection that is new: what the records say is set again where QEMU does not show it. A volume whose limits
   * are being changed, and its group, are left to that operation. Never throws but for a connection that has ended.
   */
  async settleAll(qmp: QmpClient): Promise<void> {
    const { volumes, log } = this.#host;
    const limited = volumes.all().filter(({ state, limits }) => state.state === 'attached' && limits !== undefined);
    if (limited.length === 0) {
      this.#looked = true;
      return;
    }
    using _turn = await this.#turn.acquire();
    const seen = await this.#look(qmp);
    const changing = limited.flatMap(({ operation }) => (operation?.kind === 'limit' ? operation.limits.group : []));
    for (const volume of limited) {
      const { id: volumeId, operation, limits = UNLIMITED } = volume;
      // Those of a budget are what it makes of what QEMU shows.
      const left =
        volume.draw !== undefined ||
        operation?.kind === 'limit' ||
        (limits.group !== '' && changing.includes(limits.group));
      if (left || !seen.has(volume) || isDeepStrictEqual(seen.get(volume), limits)) continue;
      log.warn({ volumeId, limits: limitsText(limits) }, 'I/O limits are not those of the record; set again');
      await send(qmp, volume, limits).catch((error: unknown) => {
        if (!isQmpError(error)) throw error;
        log.error({ volumeId, problem: messageOf(error) }, 'I/O limits could not be set again');
      });
    }
    this.#note(await this.#look(qmp));
    this.#looked = true;
  }

  /** What QEMU holds each volume to that has a disk there. */
  async #look(qmp: QmpClient): Promise<ReadonlyMap<Volume, IoLimits>> {
    const blocks = new Map((await qmp.run('query-block')).map((block) => [block.qdev, block.inserted]));
    const found = this.#host.volumes.all().flatMap((volume): [Volume, IoLimits][] => {
      const shown = volume.isRemoved() ? undefined : blocks.get(frontEndOf().backendPath(volume.names.device));
      return shown === undefined ? [] : [[volume, limitsSeen(shown)]];
    });
    return new Map(found);
  }

  #note(seen: ReadonlyMap<Volume, IoLimits>): ReadonlyMap<Volume, IoLimits> {
    for (const [volume, limits] of seen) {
      // One that never had any goes on without a record of it.
      if (volume.limits === undefined && !isLimited(limits)) continue;
      this.#host.volumes.apply(volume, { kind: 'limited', limits });
    }
    return seen;
  }
}

async function send(qmp: QmpClient, volume: Volume, limits: IoLimits): Promise<void> {
  const { device } = volume.names;
  const throttle = throttleOf(limits, device);
  try {
    await qmp.run('block_set_io_throttle', { id: frontEndOf().backendPath(device), ...throttle });
  } catch (error) {
    throw isQmpError(error) ? limitsFailed(volume, error.message, error) : error;
  }
}

function limitsFailed({ id: volumeId }: Volume, problem: string, cause?: unknown): ShimError {
  return new ShimError('FAILED_PRECONDITION', `the I/O of volume ${volumeId} cannot be limited so: ${problem}`, {
    reason: 'LIMITS_FAILED',
    metadata: { volumeId },
    cause,
  });
}

function withoutDevice({ id: volumeId }: Volume): ShimError {
  return new ShimError('FAILED_PRECONDITION', `volume ${volumeId} has no device in QEMU any more`, {
    reason: 'VOLUME_NOT_ATTACHED',
    metadata: { volumeId },
  });
}
