import type { AnyReason } from '../base/reasons.ts';
import { EXIT } from './exit-codes.ts';

export interface CliFailureOptions {
  /** Of reasons.ts; what a daemon of another version says may be any other. */
  readonly reason: AnyReason;
  readonly exitCode: number;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly cause?: unknown;
}

/** Why this run of the command did not do what it was asked to: gRPC status name, reason, sentence and exit code. */
export class CliFailure extends Error {
  readonly code: string;
  readonly reason: AnyReason;
  readonly exitCode: number;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(code: string, message: string, options: CliFailureOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CliFailure';
    this.code = code;
    this.reason = options.reason;
    this.exitCode = options.exitCode;
    this.metadata = options.metadata ?? {};
  }
}

/** A failure of the command line itself: options that contradict each other, unreadable input. */
export function usageFailure(message: string): CliFailure {
  return new CliFailure('INVALID_ARGUMENT', message, { reason: 'USAGE', exitCode: EXIT.usage });
}

/** Ctrl-C, SIGTERM, or the end of whoever read the output. */
export class Interrupted extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super('interrupted');
    this.name = 'Interrupted';
    this.exitCode = exitCode;
  }
}
