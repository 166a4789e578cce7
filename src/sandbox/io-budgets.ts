import { join } from 'node:path';
import { Coalesced } from '../base/coalesce.ts';
import { monotonicMs, sleep } from '../base/deadline.ts';
import { invalidArgument, messageOf, ShimError } from '../base/errors.ts';
import { checkId } from '../base/ids.ts';
import type { Logger } from '../base/log.ts';
import type { BlockStats } from '../qmp/protocol.ts';
import { BUDGETS_FILE, readBudgets, writeBudgets, type IoBudget } from '../store/io-budgets.ts';
import { frontEndOf } from '../volume/front-end/registry.ts';
import type { VolumeHost } from '../volume/host.ts';
import { UNLIMITED, type IoLimits } from '../volume/model/limits.ts';
import { fairShares, isAtLimit, PERIODS_KEPT, split, wanted, type Use } from '../volume/model/shares.ts';
import type { Volume } from '../volume/volume.ts';

/**
 * Budgets of I/O over volumes of any sandboxes:
 *
 *     set, a volume that comes ─┐
 *     every period ─────────────┴▶ round: query-blockstats of each VM ─▶ model/shares.ts ─▶ less ─▶ seen ─▶ more
 *
 * INVARIANT: nobody gets more before QEMU was seen to give others less. A VM that does not answer keeps what it had,
 * and the others share the rest.
 */

const KINDS = ['iops', 'bps'] as const;
type Kind = (typeof KINDS)[number];
/** QEMU's THROTTLE_VALUE_MAX. */
const TOTAL_MAX = 1_000_000_000_000_000;
/** Looks that come closer together say nothing of a rate. */
const INTERVAL_MIN_MS = 250;
/** Limits that would move by less stay: each that is set anew lets a tenth of a second's worth pass at once. */
const MOVES_BY = 0.05;
const LOOK_MS = 2000;

type DrawingHost = Pick<VolumeHost, 'id' | 'volumes' | 'link' | 'throttles' | 'log'>;

/** What one volume did since it draws on this budget. */
interface History {
  readonly budget: string;
  count: Readonly<Record<Kind, number>>;
  atMs: number;
  readonly uses: Record<Kind, readonly Use[]>;
}

interface Member {
  readonly host: DrawingHost;
  readonly volume: Volume;
  readonly share: number;
  /** Undefined: its VM does not answer. */
  readonly count: Readonly<Record<Kind, number>> | undefined;
  /** It has been held by this budget before. */
  readonly history: History | undefined;
}

/** A budget, and those that draw on it. */
export interface BudgetView extends IoBudget {
  readonly members: readonly { readonly sandboxId: string; readonly volume: Volume }[];
}

export class IoBudgets {
  readonly #path: string;
  readonly #periodMs: number;
  readonly #log: Logger;
  readonly #leaving = new AbortController();
  readonly #rounds = new Coalesced(() => this.#round());
  readonly #histories = new WeakMap<Volume, History>();
  readonly #problems = new WeakMap<Volume, unknown>();
  #budgets: ReadonlyMap<string, IoBudget> = new Map();
  #writing: Promise<unknown> = Promise.resolve();
  #hosts: () => Iterable<DrawingHost> = () => [];
  #running: Promise<void> | undefined;

  constructor(config: { readonly state_dir: string; readonly io_budget_period_ms: number }, log: Logger) {
    this.#path = join(config.state_dir, BUDGETS_FILE);
    this.#periodMs = config.io_budget_period_ms;
    this.#log = log;
  }

  /** Reads the budgets of an earlier daemon, and sees to them from now on. @throws Error for a file that is damaged */
  async start(hosts: () => Iterable<DrawingHost>): Promise<void> {
    this.#budgets = new Map((await readBudgets(this.#path)).map((budget) => [budget.name, budget]));
    this.#hosts = hosts;
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving.abort(new Error('the daemon is stopping'));
    await this.#running;
    await this.#writing.catch(() => undefined);
  }

  /**
   * Makes a budget, or gives it other totals; its volumes are held to them once this resolves.
   * @throws ShimError INVALID_ARGUMENT that names the field; UNAVAILABLE / JOURNAL_WRITE_FAILED
   */
  async set(budget: IoBudget): Promise<BudgetView> {
    checkId('name', budget.name);
    const drawing = this.#drawing(budget.name).length;
    for (const kind of KINDS) {
      const total = budget[kind];
      if (!Number.isSafeInteger(total) || total > TOTAL_MAX) {
        throw invalidArgument(kind, total, `must be from 0 to ${TOTAL_MAX}`);
      }
      if (total !== 0 && total < drawing) throw invalidArgument(kind, total, `is too little for ${drawing} volumes`);
    }
    if (budget.iops === 0 && budget.bps === 0) throw invalidArgument('bps', 0, 'iops or bps is needed');
    await this.#change((budgets) => budgets.set(budget.name, budget));
    if (drawing > 0) await this.#rounds.run();
    return this.get(budget.name);
  }

  /** @throws ShimError NOT_FOUND / BUDGET_NOT_FOUND */
  get(name: string): BudgetView {
    const budget = this.#budgets.get(checkId('name', name));
    if (budget === undefined) throw notFound(name);
    return this.#view(budget);
  }

  list(): readonly BudgetView[] {
    return [...this.#budgets.values()].map((budget) => this.#view(budget));
  }

  /** @returns whether there was one @throws ShimError FAILED_PRECONDITION / BUDGET_IN_USE */
  async delete(name: string): Promise<boolean> {
    if (!this.#budgets.has(checkId('name', name))) return false;
    await this.#change((budgets) => {
      const [first] = this.#drawing(name);
      if (first !== undefined) {
        throw new ShimError('FAILED_PRECONDITION', `volume ${first.volume.id} of ${first.host.id} draws on ${name}`, {
          reason: 'BUDGET_IN_USE',
          metadata: { budget: name, sandboxId: first.host.id, volumeId: first.volume.id },
        });
      }
      budgets.delete(name);
    });
    return true;
  }

  /** Why a volume cannot draw on a budget, if so. */
  refusal(name: string): ShimError | undefined {
    const budget = this.#budgets.get(name);
    if (budget === undefined) return notFound(name);
    const most = Math.min(...KINDS.map((kind) => budget[kind] || Infinity));
    if (this.#drawing(name).length < most) return undefined;
    return new ShimError('RESOURCE_EXHAUSTED', `budget ${name} is too small for one more volume`, {
      reason: 'BUDGET_FULL',
      metadata: { budget: name },
    });
  }

  /** For a volume that draws on a budget from now on. Resolves once QEMU holds it to its part. @throws ShimError */
  async admit(volume: Volume): Promise<void> {
    const name = volume.draw?.budget ?? '';
    if (!this.#budgets.has(name)) throw notFound(name);
    await this.#rounds.run();
    const problem = this.#problems.get(volume);
    if (problem !== undefined) throw problem as Error;
    if (this.#histories.get(volume)?.budget === name) return;
    throw new ShimError('FAILED_PRECONDITION', `volume ${volume.id} is not seen to be held by budget ${name}`, {
      reason: 'LIMITS_FAILED',
      metadata: { volumeId: volume.id, budget: name },
    });
  }

  #view(budget: IoBudget): BudgetView {
    const members = this.#drawing(budget.name).map(({ host, volume }) => ({ sandboxId: host.id, volume }));
    return { ...budget, members };
  }

  /** Those that draw on it, or are about to. */
  #drawing(name: string): readonly { readonly host: DrawingHost; readonly volume: Volume }[] {
    return [...this.#hosts()].flatMap((host) =>
      host.volumes
        .all()
        .filter((volume) => !volume.isRemoved() && (volume.draw ?? coming(volume))?.budget === name)
        .map((volume) => ({ host, volume })),
    );
  }

  /** One after the other; what is on disk is what holds. */
  async #change(act: (budgets: Map<string, IoBudget>) => unknown): Promise<void> {
    const work = this.#writing
      .catch(() => undefined)
      .then(async () => {
        const next = new Map(this.#budgets);
        act(next);
        await writeBudgets(this.#path, [...next.values()]);
        this.#budgets = next;
      });
    this.#writing = work;
    await work;
  }

  async #run(): Promise<void> {
    const { signal } = this.#leaving;
    const stays = (): Promise<boolean> =>
      sleep(this.#periodMs, signal).then(
        () => true,
        () => false,
      );
    while (await stays()) {
      if (this.#budgets.size === 0) continue;
      await this.#rounds.run().catch((error: unknown) => {
        this.#log.error({ problem: messageOf(error) }, 'budgets of I/O could not be adjusted');
      });
    }
  }

  async #round(): Promise<void> {
    const hosts = [...this.#hosts()].filter(({ volumes }) =>
      volumes.all().some((volume) => volume.draw !== undefined && !volume.isRemoved()),
    );
    const members = (await Promise.all(hosts.map((host) => this.#look(host)))).flat();
    const parts = new Map<Volume, IoLimits>();
    for (const budget of this.#budgets.values()) {
      const those = members.filter(({ volume }) => volume.draw?.budget === budget.name);
      for (const [volume, limits] of this.#partsOf(budget, those)) parts.set(volume, limits);
    }
    const moving = members.filter(({ volume }) => parts.has(volume));
    const lower = new Map(
      moving.flatMap(({ volume, history }) => {
        const [part, now] = [parts.get(volume), volume.limits];
        if (part === undefined || now === undefined || history === undefined) return [];
        const less = { ...part, iops: Math.min(part.iops, now.iops), bps: Math.min(part.bps, now.bps) };
        return less.iops < now.iops || less.bps < now.bps ? [[volume, less] as const] : [];
      }),
    );
    const failed = await this.#apply(moving, lower);
    // What was to be given to others is not there.
    const blocked = new Set([...failed].map(({ draw }) => draw?.budget));
    const rest = [...parts].filter(([{ draw }]) => !blocked.has(draw?.budget));
    await this.#apply(moving, new Map(rest));
  }

  /** What each is to have; nothing for those that stay as they are. */
  #partsOf(budget: IoBudget, members: readonly Member[]): ReadonlyMap<Volume, IoLimits> {
    const there = members.filter(({ count }) => count !== undefined);
    const away = members.filter(({ count }) => count === undefined);
    // What an earlier daemon gave it, and has given or taken since, is not known before it answers.
    if (there.length === 0 || away.some(({ host }) => !host.throttles.looked)) return new Map();
    const kinds = KINDS.map((kind) => [kind, this.#partsOfKind(budget, kind, there, away)] as const);
    if (!kinds.some(([kind, parts]) => moves(kind, parts, there, budget))) return new Map();
    return new Map(
      there.map(({ volume }, index) => {
        const values = Object.fromEntries(kinds.map(([kind, parts]) => [kind, parts[index] ?? 0]));
        return [volume, { ...UNLIMITED, ...values }];
      }),
    );
  }

  #partsOfKind(budget: IoBudget, kind: Kind, there: readonly Member[], away: readonly Member[]): readonly number[] {
    if (budget[kind] === 0) return there.map(() => 0);
    const taken = away.reduce((sum, { volume }) => sum + (volume.limits?.[kind] ?? 0), 0);
    const total = Math.max(there.length, budget[kind] - taken);
    const fair = fairShares(total, there);
    const claims = there.map(({ share, history }, index) => ({
      share,
      wants: wanted(history?.uses[kind] ?? [], fair[index] ?? 1),
    }));
    return split(total, claims);
  }

  /** @returns those whose VM did not do it */
  async #apply(members: readonly Member[], parts: ReadonlyMap<Volume, IoLimits>): Promise<ReadonlySet<Volume>> {
    const failed = new Set<Volume>();
    const hosts = new Set(members.filter(({ volume }) => parts.has(volume)).map(({ host }) => host));
    await Promise.all(
      [...hosts].map(async (host) => {
        const own = members.filter((one) => one.host === host && parts.has(one.volume));
        try {
          await host.throttles.share(new Map(own.map(({ volume }) => [volume, parts.get(volume) ?? UNLIMITED])));
          for (const { volume, history, count } of own) {
            this.#problems.delete(volume);
            if (history === undefined && count !== undefined) this.#begin(volume, count);
          }
        } catch (error) {
          host.log.warn({ problem: messageOf(error) }, 'parts of a budget of I/O are not set');
          for (const { volume } of own) {
            failed.add(volume);
            this.#problems.set(volume, error);
          }
        }
      }),
    );
    return failed;
  }

  #begin(volume: Volume, count: Readonly<Record<Kind, number>>): void {
    const { draw } = volume;
    if (draw === undefined) return;
    this.#histories.set(volume, { budget: draw.budget, count, atMs: monotonicMs(), uses: { iops: [], bps: [] } });
  }

  /** One look for all volumes of a VM. */
  async #look(host: DrawingHost): Promise<readonly Member[]> {
    let stats: readonly BlockStats[] | undefined;
    try {
      stats = await host.link.current.run('query-blockstats', undefined, { timeoutMs: LOOK_MS });
    } catch (error) {
      host.log.debug({ problem: messageOf(error) }, 'a VM whose volumes draw on a budget does not answer');
    }
    const atMs = monotonicMs();
    return host.volumes.all().flatMap((volume): Member[] => {
      const { draw } = volume;
      if (draw === undefined || volume.isRemoved()) return [];
      const { share } = draw;
      const history = this.#historyOf(volume);
      if (stats === undefined) return [{ host, volume, share, count: undefined, history }];
      const path = frontEndOf().backendPath(volume.names.device);
      const found = stats.find(({ qdev }) => qdev === path)?.stats;
      // Its device is gone, or not there yet.
      if (found === undefined) return [];
      const count = {
        iops: found.rd_operations + found.wr_operations,
        bps: found.rd_bytes + found.wr_bytes,
      };
      if (history !== undefined) note(history, volume, count, atMs);
      return [{ host, volume, share, count, history }];
    });
  }

  #historyOf(volume: Volume): History | undefined {
    const history = this.#histories.get(volume);
    return history?.budget === volume.draw?.budget ? history : undefined;
  }
}

/** An attach that has begun will draw on the budget of its spec. */
function coming({ state, spec }: Volume): { readonly budget: string } | undefined {
  return state.state === 'pending' ? spec.draw : undefined;
}

function note(history: History, { limits }: Volume, count: Readonly<Record<Kind, number>>, atMs: number): void {
  const passedMs = atMs - history.atMs;
  if (passedMs < INTERVAL_MIN_MS) return;
  for (const kind of KINDS) {
    const rate = ((count[kind] - history.count[kind]) * 1000) / passedMs;
    const limit = limits?.[kind] ?? 0;
    const use = { rate, atLimit: limit > 0 && isAtLimit(rate, limit) };
    history.uses[kind] = [...history.uses[kind], use].slice(-PERIODS_KEPT);
  }
  history.count = count;
  history.atMs = atMs;
}

/** Whether it is worth it, or has to be. */
function moves(kind: Kind, parts: readonly number[], members: readonly Member[], budget: IoBudget): boolean {
  const held = members.map(({ volume, history }) => (history === undefined ? 0 : (volume.limits?.[kind] ?? 0)));
  const isTooMuch = budget[kind] > 0 && held.reduce((sum, one) => sum + one, 0) > budget[kind];
  const isNew = members.some(({ history }) => history === undefined);
  return isTooMuch || isNew || parts.some((part, index) => Math.abs(part - (held[index] ?? 0)) > part * MOVES_BY);
}

function notFound(name: string): ShimError {
  return new ShimError('NOT_FOUND', `there is no budget ${name}`, {
    reason: 'BUDGET_NOT_FOUND',
    metadata: { budget: name },
  });
}
