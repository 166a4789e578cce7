import { shimError, type ShimError } from '../base/errors.ts';

/** What a source may say; which status each comes with is in base/reasons.ts. */
export type KeyReason =
  | 'KEY_NOT_FOUND'
  | 'KEY_SOURCE_DOWN'
  | 'KEY_SOURCE_REFUSED'
  | 'KEY_SOURCE_TIMEOUT'
  | 'KEY_EMPTY'
  | 'KEY_TOO_LONG'
  | 'KEY_BOUND'
  | 'KEY_DISPOSED';

/** Everything that can go wrong with a key, without a byte of it: `cause` must not have seen the key either. */
export function keyError(
  reason: KeyReason,
  message: string,
  options: { readonly metadata?: Readonly<Record<string, string>>; readonly cause?: unknown } = {},
): ShimError {
  return shimError(reason, message, options);
}
