import { ShimError, isShimError, messageOf } from '../base/errors.ts';

/** QEMU answered a command with an error. Programs branch on `errorClass`; the text is for people and changes. */
export class QmpError extends Error {
  /** QAPI's QapiErrorClass: GenericError, CommandNotFound, DeviceNotActive, DeviceNotFound, KVMMissingCap. */
  readonly errorClass: string;
  readonly command: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`${command}: ${description}`);
    this.name = 'QmpError';
    this.errorClass = errorClass;
    this.command = command;
  }
}

/** True for a QmpError, optionally of one of the given classes. */
export function isQmpError(error: unknown, ...classes: readonly string[]): error is QmpError {
  return error instanceof QmpError && (classes.length === 0 || classes.includes(error.errorClass));
}

/** UNAVAILABLE / QMP_LOST: the connection ended, or can not be trusted any more. */
export function qmpLost(message: string, cause?: unknown): ShimError {
  return new ShimError('UNAVAILABLE', message, { reason: 'QMP_LOST', ...(cause === undefined ? {} : { cause }) });
}

/** Any failure as a ShimError; what QEMU answered unexpectedly is INTERNAL. */
export function asShimError(error: unknown): ShimError {
  if (isShimError(error)) return error;
  const reason = isQmpError(error) ? 'QMP_ERROR' : 'UNEXPECTED';
  return new ShimError('INTERNAL', messageOf(error), { reason, cause: error });
}
