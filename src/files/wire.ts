import { ShimError, errnoOf, isShimError, messageOf, type ShimErrorDetails } from '../base/errors.ts';
import type { Reason, ShimCode } from '../base/reasons.ts';

/** What the daemon and its helpers say to each other over Node's own channel (structured clone). */

export type Request =
  /**
   * Runs a job of the helper's table, which touches one path, if that stays on the file system on which it begins. What
   * it opens to be kept stays open until `drop`.
   */
  | {
      readonly id: number;
      readonly kind: 'run';
      readonly job: string;
      readonly args: readonly unknown[];
      readonly path: string;
    }
  /** On descriptor 3 lie bytes and a socket: sends them there, with what is kept open beside them. */
  | { readonly id: number; readonly kind: 'give' }
  /** Closes what is kept open. */
  | { readonly id: number; readonly kind: 'drop' };

export type Answer =
  /** It is up. Not an answer to anything. */
  | { readonly id: 0; readonly kind: 'ready' }
  | { readonly id: number; readonly kind: 'done'; readonly value: unknown }
  /** Nothing was done: the path leads to another file system, there. */
  | { readonly id: number; readonly kind: 'elsewhere'; readonly path: string }
  | { readonly id: number; readonly kind: 'failed'; readonly error: ErrorData }
  /** The file system has answered something: the time limit begins anew. */
  | { readonly id: number; readonly kind: 'progress' };

/** The descriptor on which a helper gets what it is to give away. */
export const GIVE_DESCRIPTOR = 3;
/** Most bytes that are given with a descriptor: an add-fd with a path of 4096 bytes, each escaped. */
export const GIVE_BYTES_MAX = 64 * 1024;

/** An error on its way between processes. */
export interface ErrorData {
  readonly message: string;
  readonly errno: string | undefined;
  readonly shim:
    | { readonly code: ShimCode; readonly reason: Reason; readonly metadata: Readonly<Record<string, string>> }
    | undefined;
  readonly cause: ErrorData | undefined;
  /** Some of what was to be sent has gone, or may have (give.ts). */
  readonly sent: boolean;
}

/** Takes an error apart. */
export function errorData(error: unknown): ErrorData {
  const shim = isShimError(error) ? { code: error.code, reason: error.reason, metadata: error.metadata } : undefined;
  const cause = error instanceof Error && error.cause !== undefined ? errorData(error.cause) : undefined;
  const sent = error instanceof Error && 'sent' in error;
  return { message: messageOf(error), errno: shim === undefined ? errnoOf(error) : undefined, shim, cause, sent };
}

/** Puts an error together again: a ShimError, or one with the errno of a system error. */
export function errorFrom({ message, errno, shim, cause, sent }: ErrorData): Error {
  const details: ShimErrorDetails = cause === undefined ? {} : { cause: errorFrom(cause) };
  if (shim !== undefined) {
    const { code, reason, metadata } = shim;
    // They were of one row of the table when they were made.
    return new ShimError(
      ...([code, message, { ...details, reason, metadata }] as ConstructorParameters<typeof ShimError>),
    );
  }
  const error = new Error(message, details);
  return Object.assign(error, errno !== undefined && { code: errno }, sent && { sent });
}
