import { ShimError } from '../base/errors.ts';

/** What one caller may have at once, whatever it has of something else. */
export interface QuotaLimits {
  readonly connections: number;
  readonly calls: number;
  readonly streams: number;
}
export type Countable = keyof QuotaLimits;

const NAMES = {
  connections: { what: 'connections', option: 'caller_connections_max', all: 'connections_max' },
  calls: { what: 'calls', option: 'caller_calls_max', all: 'calls_max' },
  streams: { what: 'streams', option: 'caller_watchers_max', all: 'watchers_max' },
} as const satisfies Record<Countable, object>;

/**
 * How many of something may be in progress at once, in all and for one caller; one more is refused, and those in
 * progress do not notice. A caller that uses up its own part leaves the others theirs.
 */
export class Quotas {
  readonly #all: QuotaLimits;
  readonly #each: QuotaLimits;
  readonly #used = { connections: 0, calls: 0, streams: 0 };
  /** By caller; one that uses nothing has no entry. */
  readonly #usedBy = new Map<string, Record<Countable, number>>();

  constructor(all: QuotaLimits, each: QuotaLimits) {
    this.#all = all;
    this.#each = each;
  }

  /**
   * Counts one more until the answer is disposed of.
   * @throws ShimError RESOURCE_EXHAUSTED / TOO_MANY_CALLS
   */
  enter(caller: string, kind: Countable): Disposable {
    const { what, option, all } = NAMES[kind];
    const own = this.#usedBy.get(caller) ?? { connections: 0, calls: 0, streams: 0 };
    if (own[kind] >= this.#each[kind]) {
      throw tooMany(`${caller} has ${this.#each[kind]} ${what} in progress already`, what, this.#each[kind], option);
    }
    if (this.#used[kind] >= this.#all[kind]) {
      throw tooMany(`${this.#all[kind]} ${what} are in progress already`, what, this.#all[kind], all);
    }
    this.#usedBy.set(caller, own);
    own[kind] += 1;
    this.#used[kind] += 1;
    return { [Symbol.dispose]: () => this.#leave(caller, own, kind) };
  }

  #leave(caller: string, own: Record<Countable, number>, kind: Countable): void {
    own[kind] -= 1;
    this.#used[kind] -= 1;
    if (own.connections + own.calls + own.streams === 0) this.#usedBy.delete(caller);
  }
}

function tooMany(message: string, what: string, max: number, option: string): ShimError {
  return new ShimError('RESOURCE_EXHAUSTED', message, {
    reason: 'TOO_MANY_CALLS',
    metadata: { what, max: String(max), option },
  });
}
