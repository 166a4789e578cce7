/** Sizes as people write them. Pure. */

const UNITS = ['', 'K', 'M', 'G', 'T', 'P'];

/** What a size may look like, for messages. */
export const SIZE_FORM =
  'bytes, or a number with K, M, G or T (KiB, MiB, GiB, TiB; powers of 1024), such as 512M or 1.5G';

/** A size that was written out. */
export interface WrittenSize {
  readonly bytes: number;
  /** It had a unit, B included: without one the place decides what the number counts. */
  readonly unit: boolean;
}

/**
 * `4096`, `4096B`, `512M`, `2GiB`, `1.5T`, in either case: powers of 1024, as qemu-img and the kernel's tools count.
 * KB, MB and GB are refused, for to some they are powers of 1000.
 * @returns undefined for anything else, for what is no whole number of bytes, and for more than 2^53 - 1
 */
export function parseSize(text: string): WrittenSize | undefined {
  const [, whole, fraction = '', unit = ''] = /^(\d{1,16})(?:\.(\d{1,15}))?(B|[KMGTP](?:iB)?)?$/i.exec(text) ?? [];
  if (whole === undefined) return undefined;
  const power = UNITS.indexOf(unit.slice(0, 1).toUpperCase());
  const scaled = BigInt(whole + fraction) * 1024n ** BigInt(Math.max(0, power));
  const divisor = 10n ** BigInt(fraction.length);
  if (scaled % divisor !== 0n) return undefined;
  const bytes = Number(scaled / divisor);
  return Number.isSafeInteger(bytes) ? { bytes, unit: unit !== '' } : undefined;
}
