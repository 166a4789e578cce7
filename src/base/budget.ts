import { monotonicMs } from './deadline.ts';

/**
 * What the guests may cost the daemon, which has one thread for all of them:
 *
 *     a channel (agent, uevents, QMP, ports) ─ meter.charge ─▶ GuestBudget ─ beyond its own share ─▶ HostBudget
 *                     ◀─ how long to rest ─
 *
 * Whoever reads a guest's channel charges what it has read, and rests for as long as it is told: it reads nothing
 * meanwhile, so the guest waits in its own write and the daemon does nothing. Two kinds of work are counted. `control`
 * is what the daemon itself takes in and understands: in bytes and in lines (a read counts as a line at least, since
 * reads of single bytes cost the most). `stream` is what it only passes on to somebody who asked for it, such as the
 * output of a container: in bytes.
 *
 * INVARIANT: over any time, a guest is charged at most its rate times that time, its burst, and one read for each of
 * its channels; all together, beyond their own shares, at most the total's. A guest within its own share never rests
 * because of others.
 */

/** How much may come at once after a quiet time, in seconds of the rate. */
const BURST_SECONDS = 8;
/** The part of a guest's rate that is its own, whatever the others do. */
const OWN_SHARE = 1 / 16;
/** The shortest and the longest rest. A short one would cost more than it saves. */
const REST_MIN_MS = 10;
const REST_MAX_MS = 1000;
/** A channel that had to rest for half of such a time is over the budget. */
const WINDOW_MS = 10_000;
const WINDOW_REST_MAX_MS = WINDOW_MS / 2;
/** A guest that has kept within the budget for so long is told of as such. */
const CALM_MS = 30_000;

/** A rate in units a second, with a burst in units. It may be overdrawn, and is then paid back before anything else. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #nowMs: () => number;
  #tokens: number;
  #atMs: number;

  constructor(perSecond: number, burst: number, nowMs: () => number = monotonicMs) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#nowMs = nowMs;
    this.#tokens = burst;
    this.#atMs = nowMs();
  }

  /** What can be taken without a debt. */
  get tokens(): number {
    const nowMs = this.#nowMs();
    this.#tokens = Math.min(this.#burst, this.#tokens + ((nowMs - this.#atMs) / 1000) * this.#perSecond);
    this.#atMs = nowMs;
    return this.#tokens;
  }

  take(amount: number): void {
    this.#tokens = this.tokens - amount;
  }

  /** Until the debt is paid back, in milliseconds; 0 when there is none. */
  get waitMs(): number {
    return this.msUntil(0);
  }

  /** Until so much can be taken without a debt, in milliseconds; 0 when it can be now. */
  msUntil(amount: number): number {
    return Math.max(0, (amount - this.tokens) / this.#perSecond) * 1000;
  }
}

/** Counts what one channel of a guest costs. */
export interface Meter {
  /**
   * @param bytes that were read
   * @param lines that they held, or reads that they took, if those were more
   * @returns milliseconds for which the channel is to rest now; 0: it may go on
   */
  charge(bytes: number, lines: number): number;
}

/** For channels that nobody counts: tests, tools. */
export const UNMETERED: Meter = { charge: () => 0 };

/** Units a second. */
export interface BudgetRates {
  readonly bytes: number;
  readonly lines: number;
  readonly streamBytes: number;
}

export interface BudgetOptions {
  /** What one guest may cost. */
  readonly guest: BudgetRates;
  /** What all may cost together, beyond what is each one's own. */
  readonly total: BudgetRates;
}

/** Who is told when a guest goes over its budget, and when it has kept to it again. */
export interface BudgetListener {
  over(channel: string, what: string): void;
  calm(): void;
}

class Buckets {
  readonly bytes: TokenBucket;
  readonly lines: TokenBucket;
  readonly streamBytes: TokenBucket;

  constructor(rates: BudgetRates, part: number, nowMs: () => number) {
    const bucket = (rate: number): TokenBucket => new TokenBucket(rate * part, rate * part * BURST_SECONDS, nowMs);
    this.bytes = bucket(rates.bytes);
    this.lines = bucket(rates.lines);
    this.streamBytes = bucket(rates.streamBytes);
  }
}

/** The options of the configuration that say it. */
interface BudgetConfig {
  readonly guest_bytes_per_second_max: number;
  readonly guest_lines_per_second_max: number;
  readonly guest_stream_bytes_per_second_max: number;
  readonly guests_bytes_per_second_max: number;
  readonly guests_lines_per_second_max: number;
  readonly guests_stream_bytes_per_second_max: number;
}

/** The budget of all guests of a daemon. */
export class HostBudget {
  readonly #options: BudgetOptions;
  readonly #nowMs: () => number;
  readonly #total: Buckets;

  constructor(options: BudgetOptions, nowMs: () => number = monotonicMs) {
    this.#options = options;
    this.#nowMs = nowMs;
    this.#total = new Buckets(options.total, 1, nowMs);
  }

  static from(config: BudgetConfig): HostBudget {
    return new HostBudget({
      guest: {
        bytes: config.guest_bytes_per_second_max,
        lines: config.guest_lines_per_second_max,
        streamBytes: config.guest_stream_bytes_per_second_max,
      },
      total: {
        bytes: config.guests_bytes_per_second_max,
        lines: config.guests_lines_per_second_max,
        streamBytes: config.guests_stream_bytes_per_second_max,
      },
    });
  }

  /** The budget of one more guest. */
  guest(): GuestBudget {
    return new GuestBudget(this.#options.guest, this.#total, this.#nowMs);
  }
}

/** The budget of one guest, over all of its channels. */
export class GuestBudget implements Disposable {
  readonly #all: Buckets;
  readonly #own: Buckets;
  readonly #total: Buckets;
  readonly #nowMs: () => number;
  #listener: BudgetListener | undefined;
  #windowMs: number;
  #restedMs = 0;
  /** When it was over last; undefined while it keeps to its budget. */
  #overAtMs: number | undefined;
  #calm: NodeJS.Timeout | undefined;

  constructor(rates: BudgetRates, total: Buckets, nowMs: () => number) {
    this.#all = new Buckets(rates, 1, nowMs);
    this.#own = new Buckets(rates, OWN_SHARE, nowMs);
    this.#total = total;
    this.#nowMs = nowMs;
    this.#windowMs = nowMs();
  }

  /** Tells who is to hear of it; there is one at a time. */
  listen(listener: BudgetListener): void {
    this.#listener = listener;
  }

  /** For what the daemon understands: the agent, announcements, events. */
  control(channel: string): Meter {
    return {
      charge: (bytes, lines) => {
        const waits = [this.#take('bytes', bytes), this.#take('lines', lines)];
        return this.#rest(channel, Math.max(...waits));
      },
    };
  }

  /** For what the daemon only passes on. To be slowed down is then nobody's fault. */
  get stream(): Meter {
    return { charge: (bytes) => restOf(this.#take('streamBytes', bytes)) };
  }

  /** A channel was ended because of what came over it. */
  over(channel: string, what: string): void {
    const isNews = this.#overAtMs === undefined;
    this.#overAtMs = this.#nowMs();
    if (!isNews) return;
    this.#awaitCalm(CALM_MS);
    this.#listener?.over(channel, what);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#calm);
    this.#listener = undefined;
  }

  #take(kind: keyof BudgetRates, amount: number): number {
    this.#all[kind].take(amount);
    // Its own share first, so that those who ask for little never wait for those who ask for much.
    const isOwn = this.#own[kind].tokens >= amount;
    (isOwn ? this.#own : this.#total)[kind].take(amount);
    return Math.max(this.#all[kind].waitMs, isOwn ? 0 : this.#total[kind].waitMs);
  }

  #rest(channel: string, waitMs: number): number {
    const restMs = restOf(waitMs);
    if (restMs === 0) return 0;
    const nowMs = this.#nowMs();
    if (nowMs - this.#windowMs > WINDOW_MS) {
      this.#windowMs = nowMs;
      this.#restedMs = 0;
    }
    this.#restedMs += restMs;
    if (this.#restedMs > WINDOW_REST_MAX_MS) this.over(channel, 'it sends more than the daemon takes from one guest');
    return restMs;
  }

  #awaitCalm(milliseconds: number): void {
    this.#calm = setTimeout(() => {
      const leftMs = (this.#overAtMs ?? 0) + CALM_MS - this.#nowMs();
      if (leftMs > 0) {
        this.#awaitCalm(leftMs);
        return;
      }
      this.#overAtMs = undefined;
      this.#listener?.calm();
    }, milliseconds);
    this.#calm.unref();
  }
}

function restOf(waitMs: number): number {
  return waitMs <= 0 ? 0 : Math.min(REST_MAX_MS, Math.max(REST_MIN_MS, Math.ceil(waitMs)));
}
