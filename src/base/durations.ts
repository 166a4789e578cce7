/** Durations as people write them. Pure. */

const UNITS_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** What a duration may look like, for messages. */
export const DURATION_FORM = 'a number with ms, s, m, h or d, such as 30s, 10m or 1h30m';

/** @returns milliseconds; undefined for anything else, and for more than 2^53 - 1 */
export function parseDuration(text: string): number | undefined {
  if (!/^(?:\d{1,12}(?:ms|[smhd]))+$/.test(text)) return undefined;
  let milliseconds = 0;
  for (const [, count, unit] of text.matchAll(/(\d+)(ms|[smhd])/g)) {
    milliseconds += Number(count) * UNITS_MS[unit as keyof typeof UNITS_MS];
  }
  return Number.isSafeInteger(milliseconds) ? milliseconds : undefined;
}
