import { ShimError, type ShimCode } from '../base/errors.ts';

const CODES = {
  /** No such file, credential or variable. */
  KEY_NOT_FOUND: 'NOT_FOUND',
  /** The source is known and does not answer as it should: a server that is down, a command that fails. */
  KEY_SOURCE_DOWN: 'UNAVAILABLE',
  /** Not by the rules: owner, mode, kind of file, a name or path that the operator has not allowed. */
  KEY_SOURCE_REFUSED: 'PERMISSION_DENIED',
  KEY_SOURCE_TIMEOUT: 'DEADLINE_EXCEEDED',
  KEY_EMPTY: 'FAILED_PRECONDITION',
  KEY_TOO_LONG: 'FAILED_PRECONDITION',
  KEY_DISPOSED: 'INTERNAL',
} as const satisfies Record<string, ShimCode>;

export type KeyReason = keyof typeof CODES;

/** Everything that can go wrong with a key, without a byte of it: `cause` must not have seen the key either. */
export function keyError(
  reason: KeyReason,
  message: string,
  options: { readonly metadata?: Readonly<Record<string, string>>; readonly cause?: unknown } = {},
): ShimError {
  return new ShimError(CODES[reason], message, { reason, ...options });
}
