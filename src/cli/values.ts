/** How single values look: to people in tables, to programs in JSON. All pure. */
import type { Timestamp__Output as Timestamp } from '../grpc/generated/google/protobuf/Timestamp.ts';
import type { Cause__Output as Cause } from '../grpc/generated/qshim/v1/Cause.ts';
import type { Timing__Output as Timing } from '../grpc/generated/qshim/v1/Timing.ts';
import { visible } from '../base/visible.ts';

/** Shown where there is nothing to show, so that a column is never silently empty. */
export const NOTHING = '-';

/** "CACHE_MODE_IO_URING" with prefix "CACHE_MODE_" is "io_uring"; the unspecified value is "-". */
export function enumWord(prefix: string, value: string): string {
  const word = (value.startsWith(prefix) ? value.slice(prefix.length) : value).toLowerCase();
  return word === 'unspecified' ? NOTHING : word;
}

/** The text, or "-" when it is empty. */
export function orNothing(text: string | undefined): string {
  return text === undefined || text === '' ? NOTHING : visible(text);
}

/** A count where 0 means "not set". */
export function countOrNothing(count: number): string {
  return count === 0 ? NOTHING : String(count);
}

/** Bytes as people say them, in powers of 1024: "512 B", "1.5 GiB". */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  const rounded = Number.isInteger(amount) ? String(amount) : amount.toFixed(1);
  return `${rounded} ${units[unit] ?? ''}`;
}

/** Milliseconds as people say them: "0.4 ms", "231 ms", "1.24 s". */
export function durationText(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return `${milliseconds < 100 ? milliseconds.toFixed(1) : milliseconds.toFixed(0)} ms`;
}

/**
 * google.protobuf.Timestamp in RFC 3339 with the fraction it has (3, 6 or 9 digits), as protobuf's JSON mapping does.
 */
export function timestampText(time: Timestamp): string {
  const at = new Date(time.seconds * 1000);
  // Outside the range of Date there is no calendar text; the number is still true.
  if (Number.isNaN(at.getTime())) return `${time.seconds}.${String(time.nanos).padStart(9, '0')}`;
  const nanos = String(time.nanos).padStart(9, '0');
  const digits = nanos.endsWith('000000') ? 3 : nanos.endsWith('000') ? 6 : 9;
  return `${at.toISOString().slice(0, -'.000Z'.length)}.${nanos.slice(0, digits)}Z`;
}

export function timestampOrNothing(time: Timestamp | null): string {
  return time === null ? NOTHING : timestampText(time);
}

/** "GUEST_BUSY: the guest still uses the disk", or "-". */
export function causeText(cause: Cause | null): string {
  if (cause === null || (cause.reason === '' && cause.message === '')) return NOTHING;
  return visible([cause.reason, cause.message].filter((part) => part !== '').join(': '));
}

/** "qmp 12.3 ms, driver 87.0 ms". */
export function timingsText(timings: readonly Timing[]): string {
  return timings.map(({ phase, milliseconds }) => `${visible(phase)} ${durationText(milliseconds)}`).join(', ');
}

/** "a=1,b=2" in the order of the names. */
export function labelsText(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return orNothing(pairs.map(([name, value]) => `${name}=${value}`).join(','));
}

/**
 * A loaded message as JSON: field names as they are, bytes in base64, timestamps in RFC 3339 (both as protobuf's own
 * JSON mapping has them), 64-bit integers as numbers.
 */
export function jsonValue(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (Array.isArray(value)) return value.map((item) => jsonValue(item));
  if (typeof value !== 'object' || value === null) return value;
  if (isTimestamp(value)) return timestampText(value);
  // `_name` is the loader's word for a field that may be missing.
  const fields = Object.entries(value).filter(([name]) => !name.startsWith('_'));
  return Object.fromEntries(fields.map(([name, field]) => [name, jsonValue(field)]));
}

function isTimestamp(value: object): value is Timestamp {
  return (
    Object.keys(value).length === 2 &&
    'seconds' in value &&
    typeof value.seconds === 'number' &&
    'nanos' in value &&
    typeof value.nanos === 'number'
  );
}
