/**
 * How a budget is split among those that draw on it: pure arithmetic, once for operations and once for bytes.
 *
 *     what each did in the last periods ─▶ wanted ─┐
 *     shares ──────────────────────────────────────┴▶ split ─▶ what each may have from now on
 *
 * - Together they never have more than the total.
 * - Each has what it wants, or its fair share at least.
 * - What some do not want goes to those that want more, by their shares; nothing is left.
 */

/** One of those that draw on a budget. */
export interface Claim {
  /** Weight, above 0. */
  readonly share: number;
  /** So much a second would do; Infinity: whatever there is. */
  readonly wants: number;
}

/** What one did in a period, a second, and whether it was held back. */
export interface Use {
  readonly rate: number;
  readonly atLimit: boolean;
}

/** So many periods are looked back on: one that pauses for a moment is not idle. */
export const PERIODS_KEPT = 4;
/** One that was held back in one of so many newest periods wants more. */
const PERIODS_HELD_BACK = 2;
/** Parts of the fair share by which a wish is counted, so that what moves a little moves nobody's limits. */
const STEPS = 16;
/** Room above what was used, so that one that begins to use more is seen to. */
const HEADROOM = 1.25;
/** What arithmetic with fractions has lost is not a whole unit. */
const ROUNDING = 0.01;
/** From here on a rate counts as held back: a limit is not met on the point. */
const AT_LIMIT = 0.85;

export function isAtLimit(rate: number, limit: number): boolean {
  return rate >= limit * AT_LIMIT;
}

/**
 * What one wants, by what it did; the newest use comes last. Never less than a sixteenth of its fair share: by that an
 * idle one is seen to wake up, and then has its fair share in the next period.
 */
export function wanted(uses: readonly Use[], fair: number): number {
  // Of one that is new nothing is known.
  if (uses.length === 0 || uses.slice(-PERIODS_HELD_BACK).some(({ atLimit }) => atLimit)) return Infinity;
  const peak = Math.max(...uses.map(({ rate }) => rate));
  return Math.max(1, Math.ceil((peak * HEADROOM * STEPS) / fair)) * (fair / STEPS);
}

/** What each would have if all wanted all. The least that a limit can be is 1, since 0 is none. */
export function fairShares(total: number, claims: readonly { readonly share: number }[]): readonly number[] {
  const weights = claims.reduce((sum, { share }) => sum + share, 0);
  return claims.map(({ share }) => 1 + ((total - claims.length) * share) / weights);
}

/**
 * Splits a total by shares and wishes: those whose wish is below what their share gives have it, what is left is split
 * among the others in the same way. What nobody wants goes to all, by shares: it is there at once for who needs it.
 * @param total at least as many as there are claims
 * @returns whole numbers, at least 1, in the order of the claims
 */
export function split(total: number, claims: readonly Claim[]): readonly number[] {
  const spare = total - claims.length;
  const extra = fill(
    spare,
    claims.map(({ share, wants }) => ({ share, wants: Math.max(0, wants - 1) })),
  );
  const left = Math.max(0, spare - extra.reduce((sum, one) => sum + one, 0));
  const gift = fill(
    left,
    claims.map(({ share }) => ({ share, wants: Infinity })),
  );
  const given = claims.map((_, index) => 1 + Math.floor((extra[index] ?? 0) + (gift[index] ?? 0) + ROUNDING));
  return evened(total, given);
}

/** What rounding has lost, or given too much, is some units: the largest part has them, or is without them. */
function evened(total: number, given: readonly number[]): readonly number[] {
  const left = total - given.reduce((sum, one) => sum + one, 0);
  const largest = given.indexOf(Math.max(...given));
  return given.map((one, index) => (index === largest ? one + left : one));
}

/** Weighted max-min fairness: by rising water, from the wish that is met first. */
function fill(total: number, claims: readonly Claim[]): readonly number[] {
  const order = claims.map((claim, index) => ({ ...claim, index, level: claim.wants / claim.share }));
  // Two that want all there is are equal: the difference of infinities is no number.
  order.sort((one, other) => (one.level === other.level ? 0 : one.level - other.level));
  const given = claims.map(() => 0);
  let left = total;
  let weights = claims.reduce((sum, { share }) => sum + share, 0);
  for (const { index, share, wants } of order) {
    const part = Math.min(wants, (left * share) / weights);
    given[index] = part;
    left = Math.max(0, left - part);
    weights -= share;
  }
  return given;
}
