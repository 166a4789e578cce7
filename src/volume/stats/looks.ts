import { Coalesced } from '../../base/coalesce.ts';
import { monotonicMs, sleep, TIMER_MS_MAX, waitFor } from '../../base/deadline.ts';
import { messageOf, ShimError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Config } from '../../config.ts';
import { asShimError } from '../../qmp/errors.ts';
import type { QmpClient } from '../../qmp/client.ts';
import type { BlockInfo, BlockStats } from '../../qmp/protocol.ts';
import { frontEndOf } from '../front-end/registry.ts';
import type { Volume } from '../volume.ts';
import { countersFrom, hasHistograms, LATENCY_BOUNDARIES_NS, type VolumeCounters } from './counters.ts';
import { detailsFrom, type VolumeDetails } from './details.ts';
import type { Seen } from './rates.ts';

/**
 * What QEMU has counted of all volumes of one VM, by one look at a time:
 *
 *     each period ─┐                    ┌─ query-blockstats ─▶ counters.ts ─┐
 *     fresh ───────┼─▶ look (coalesced) ┤                                   ├─▶ seen, by generation ─▶ of(volume)
 *     ATTACHED ────┘        │           └─ query-block ──────▶ details.ts ──┘
 *                           └─ a volume without histograms ─▶ block-latency-histogram-set
 *     two looks ─▶ rates.ts
 */

/** However many ask: two looks begin at least so far apart. */
const LOOKS_APART_MS = 100;
/** A QEMU that answers nothing is asked once: its answer is awaited for as long as it takes. */
const ANSWER_MS = TIMER_MS_MAX;

/** Whose volumes are looked at. Implemented by Sandbox. */
interface Looked {
  readonly id: string;
  readonly config: Pick<Config, 'stats_period_ms' | 'stats_histograms' | 'qmp_reply_timeout_ms'>;
  readonly log: Logger;
  readonly link: { ready(): Promise<Pick<QmpClient, 'run'>> };
  readonly state: string;
  readonly gone: AbortSignal;
  readonly volumes: { all(): readonly Volume[] };
  inBackground(purpose: string, work: Promise<void>): void;
}

/** What was seen of one generation of a volume. */
export interface VolumeSeen {
  readonly counters: Seen<VolumeCounters>;
  /** Those of the look before. */
  readonly before: Seen<VolumeCounters> | undefined;
  /** Not looked at each time: query-block asks the storage. */
  readonly details: Seen<VolumeDetails> | undefined;
}

export class VolumeStats {
  readonly #host: Looked;
  readonly #looks: Coalesced<void>;
  readonly #seen = new Map<number, VolumeSeen>();
  /** Generations whose details were asked for once. */
  readonly #detailed = new Set<number>();
  #withDetails = false;
  #lastMs = Number.NEGATIVE_INFINITY;

  constructor(host: Looked) {
    this.#host = host;
    this.#looks = new Coalesced(() => this.#look());
  }

  /** What was seen of a volume last; undefined while nothing was, or when it is gone. */
  of({ generation }: { readonly generation: number }): VolumeSeen | undefined {
    return this.#seen.get(generation);
  }

  /**
   * Looks now: at what QEMU has counted after this call. With `details` at limits and bitmaps too: QEMU then asks the
   * files of all volumes for their sizes, and waits for storage that hangs.
   * @throws ShimError DEADLINE_EXCEEDED / QMP_REPLY_TIMEOUT; UNAVAILABLE / QMP_LOST; the reason of `gone` or `signal`
   */
  async look({ details, signal }: { readonly details: boolean; readonly signal?: AbortSignal }): Promise<void> {
    const { gone, config, id } = this.#host;
    if (this.#open().length === 0) return;
    this.#withDetails ||= details;
    const looked = waitFor(this.#looks.run(), {
      milliseconds: config.qmp_reply_timeout_ms,
      signal: gone,
      onTimeout: () =>
        new ShimError('DEADLINE_EXCEEDED', `QEMU of sandbox ${id} has not told what it has counted in time`, {
          reason: 'QMP_REPLY_TIMEOUT',
          metadata: { command: 'query-blockstats', timeoutMs: String(config.qmp_reply_timeout_ms), sent: 'true' },
        }),
    });
    try {
      await waitFor(looked, signal === undefined ? {} : { signal });
    } catch (error) {
      throw asShimError(error);
    }
  }

  /** Looks each period, until the VM is on its way out. */
  async watch(): Promise<void> {
    const { config, gone, log } = this.#host;
    if (config.stats_period_ms === 0) return;
    for (;;) {
      await sleep(config.stats_period_ms, gone);
      if (this.#host.state !== 'running' || this.#open().length === 0) continue;
      try {
        await this.#looks.run();
      } catch (error) {
        gone.throwIfAborted();
        log.debug({ problem: messageOf(error) }, 'look at counters failed');
      }
    }
  }

  /** A volume has become ATTACHED, or some may have been found so: those without histograms get them. */
  mayLackHistograms(): void {
    if (this.#host.config.stats_histograms === 'on') this.#host.inBackground('histograms', this.#looks.run());
  }

  #open(): readonly Volume[] {
    return this.#host.volumes.all().filter((volume) => !volume.isRemoved());
  }

  async #look(): Promise<void> {
    const { gone, link } = this.#host;
    const waitMs = this.#lastMs + LOOKS_APART_MS - monotonicMs();
    if (waitMs > 0) await sleep(waitMs, gone);
    const qmp = await link.ready();
    const details = this.#wantsDetails();
    this.#lastMs = monotonicMs();
    const options = { timeoutMs: ANSWER_MS };
    const [counted, shown] = await Promise.all([
      qmp.run('query-blockstats', undefined, options).then(now),
      details ? qmp.run('query-block', undefined, options).then(now) : undefined,
    ]);
    this.#note(counted, shown);
    if (this.#host.config.stats_histograms === 'on') await this.#setHistograms(qmp);
  }

  /** Somebody has asked for them, or a volume has come, whose storage has just answered. */
  #wantsDetails(): boolean {
    const attached = this.#open().filter(({ state }) => state.state === 'attached');
    const wanted = this.#withDetails || attached.some(({ generation }) => !this.#detailed.has(generation));
    this.#withDetails = false;
    if (wanted) {
      this.#detailed.clear();
      for (const { generation } of attached) this.#detailed.add(generation);
    }
    return wanted;
  }

  /** A device that QEMU does not list has left since, or has no block back end: nothing is known of it any more. */
  #note(counted: Seen<readonly BlockStats[]>, shown: Seen<readonly BlockInfo[]> | undefined): void {
    const stats = new Map(counted.value.map((entry) => [entry.qdev, entry]));
    const blocks = new Map((shown?.value ?? []).map((entry) => [entry.qdev, entry]));
    const kept = new Set<number>();
    for (const volume of this.#open()) {
      const path = pathOf(volume);
      const entry = stats.get(path);
      if (entry === undefined) continue;
      kept.add(volume.generation);
      const last = this.of(volume);
      const block = blocks.get(path);
      const details = block && detailsFrom(block);
      this.#seen.set(volume.generation, {
        counters: { ...counted, value: countersFrom(entry) },
        before: last?.counters,
        details: shown !== undefined && details !== undefined ? { ...shown, value: details } : last?.details,
      });
    }
    for (const generation of this.#seen.keys()) if (!kept.has(generation)) this.#seen.delete(generation);
  }

  /**
   * INVARIANT: only of volumes that QEMU has just shown to have none. To set them anew loses the counts, and can cost
   * the VM: QEMU frees the old ones while an iothread may be counting.
   */
  async #setHistograms(qmp: Pick<QmpClient, 'run'>): Promise<void> {
    const { log } = this.#host;
    const lacking = this.#open().filter((volume) => {
      const seen = this.of(volume);
      return volume.state.state === 'attached' && seen !== undefined && !hasHistograms(seen.counters.value);
    });
    await Promise.all(
      lacking.map(async (volume) => {
        try {
          const boundaries = LATENCY_BOUNDARIES_NS;
          await qmp.run('block-latency-histogram-set', { id: pathOf(volume), boundaries });
        } catch (error) {
          // It may have left in between; what is lacking is set after the next look.
          log.debug({ volumeId: volume.id, problem: messageOf(error) }, 'histograms not set');
        }
      }),
    );
  }
}

function pathOf({ names }: Volume): string {
  return frontEndOf().statusPath(names.device);
}

function now<T>(value: T): Seen<T> {
  return { value, atMs: Date.now(), monotonicMs: monotonicMs() };
}
