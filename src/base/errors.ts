/**
 * Errors that cross module borders. Domain code throws `ShimError`; only `grpc/` knows how a code becomes a gRPC
 * status. What each code and each reason means is in `reasons.ts`, and in docs/errors.md, which is made of it.
 */

import { REASONS, type DecidingReason, type Reason, type ReasonWith, type ShimCode } from './reasons.ts';

export interface ShimErrorDetails {
  /** Facts for programs: field, value, path, id. Values are strings, never secrets. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

interface ShimErrorOptions<R extends Reason> extends ShimErrorDetails {
  /** Stable: programs branch on it (google.rpc.ErrorInfo.reason). */
  readonly reason: R;
}

/** A code, with a reason that can come with it. */
type ShimErrorArguments = {
  [C in ShimCode]: [code: C, message: string, options: ShimErrorOptions<ReasonWith<C>>];
}[ShimCode];

const MESSAGE_CHARS_MAX = 4096;
const METADATA_CHARS_MAX = 1024;
/** Control characters other than tab, and format characters: a terminal acts on them, and they hide what text says. */
const CONTROLS = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\p{Cf}\u2028\u2029]/gu;

/**
 * An error with a status code, a stable reason and one sentence for people.
 *
 * Messages and metadata may hold what a hostile guest said. They end up in records, events, logs, gRPC trailers and on
 * terminals, so they are made short and harmless here: well-formed Unicode, and messages, which are for people, as one
 * sentence without control and format characters. Metadata is for programs, and has the characters that there were.
 */
export class ShimError extends Error {
  readonly code: ShimCode;
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(...[code, message, options]: ShimErrorArguments) {
    super(
      oneSentence(wellFormed(message, MESSAGE_CHARS_MAX)).replace(CONTROLS, '\ufffd'),
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = 'ShimError';
    this.code = code;
    this.reason = options.reason;
    this.metadata = Object.fromEntries(
      Object.entries(options.metadata ?? {}).map(([key, value]) => [key, wellFormed(value, METADATA_CHARS_MAX)]),
    );
  }
}

/** A ShimError whose code follows from its reason: for helpers that serve many reasons. */
export function shimError(reason: DecidingReason, message: string, details: ShimErrorDetails = {}): ShimError {
  const [code] = REASONS[reason].statuses;
  // They are of the same row of the table, which the compiler does not follow through a union of rows.
  return new ShimError(...([code, message, { ...details, reason }] as ShimErrorArguments));
}

/** INVALID_ARGUMENT that names the field, the value and what would be right. */
export function invalidArgument(
  field: string,
  value: unknown,
  problem: string,
  reason: ReasonWith<'INVALID_ARGUMENT'> = 'INVALID_FIELD',
): ShimError {
  const shown = typeof value === 'string' ? JSON.stringify(shorten(value)) : String(value);
  return new ShimError('INVALID_ARGUMENT', `${field} = ${shown}: ${problem}`, {
    reason,
    metadata: { field, value: typeof value === 'string' ? shorten(value) : String(value) },
  });
}

/** True for a ShimError, optionally with one of the given codes. */
export function isShimError(error: unknown, ...codes: readonly ShimCode[]): error is ShimError {
  return error instanceof ShimError && (codes.length === 0 || codes.includes(error.code));
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Text that quotes another program as one sentence without its full stop: lines and sentences are joined by semicolons.
 * QEMU, the kernel's tools and the guest end theirs as they like.
 */
export function oneSentence(text: string): string {
  const joined = text
    .split(/[\r\n]/)
    .map((line) => withoutStop(line.trim()))
    .filter((line) => line !== '')
    .join('; ');
  return joined.replace(/([a-z]{2})\. (?=[A-Z])/g, '$1; ');
}

function withoutStop(text: string): string {
  let end = text.length;
  while (end > 0 && /[\s.]/.test(text.charAt(end - 1))) end -= 1;
  return text.slice(0, end);
}

/** errno name (`ENOENT`) of a Node system error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** At most so many UTF-16 units, and no lone surrogate: what every encoder takes. */
function wellFormed(text: string, charsMax: number): string {
  return text.slice(0, charsMax).toWellFormed();
}

function shorten(value: string): string {
  return value.length > 120 ? `${value.slice(0, 117)}...` : value;
}
