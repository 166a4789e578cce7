/**
 * Parsers for option values that are sizes. One grammar for all (base/sizes.ts); what a size may be the daemon says.
 */
import { InvalidArgumentError } from '@commander-js/extra-typings';
import { parseSize, SIZE_FORM } from '../base/sizes.ts';

const MEBIBYTE = 1024 * 1024;
/** What stands for as much as there is. */
const ALL = 'max';

/** A parser for bytes, at least `min`. */
export function sizeInBytes(min = 1): (text: string) => number {
  return (text) => {
    const bytes = parseSize(text)?.bytes;
    if (bytes === undefined || bytes < min) throw new InvalidArgumentError(`Give ${SIZE_FORM}; at least ${min}.`);
    return bytes;
  };
}

/** As sizeInBytes; `max` is 0, by which the API means as many bytes as fit. */
export function sizeOrAll(text: string): number {
  if (text === ALL) return 0;
  const bytes = parseSize(text)?.bytes;
  if (bytes === undefined || bytes === 0) throw new InvalidArgumentError(`Give ${SIZE_FORM}; or ${ALL}.`);
  return bytes;
}

/** Mebibytes: of a plain number, or of a size with a unit that is a whole number of them. */
export function sizeInMebibytes(text: string): number {
  const size = parseSize(text);
  const mebibytes = size === undefined ? 0 : size.unit ? size.bytes / MEBIBYTE : size.bytes;
  if (mebibytes > 0 && Number.isInteger(mebibytes)) return mebibytes;
  throw new InvalidArgumentError('Give whole MiB: a plain number, or one with M, G or T, such as 512M or 1.5G.');
}

/** What a disk is to grow to. */
export type WantedSize =
  | { readonly kind: 'bytes'; readonly bytes: number }
  /** More than it has. */
  | { readonly kind: 'more'; readonly bytes: number }
  /** As much as its source has now. */
  | { readonly kind: 'all' };

/** `SIZE`, `+SIZE` or `max`. */
export function wantedSize(text: string): WantedSize {
  if (text === ALL) return { kind: 'all' };
  const more = text.startsWith('+');
  const bytes = parseSize(more ? text.slice(1) : text)?.bytes;
  if (bytes !== undefined && bytes > 0) return { kind: more ? 'more' : 'bytes', bytes };
  throw new InvalidArgumentError(`Give ${SIZE_FORM}; + before it is that much more; or ${ALL}.`);
}
