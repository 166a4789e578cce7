import { access, readFile } from 'node:fs/promises';
import { Backoff } from '../base/backoff.ts';
import { waitFor } from '../base/deadline.ts';
import { ShimError, type ShimErrorDetails } from '../base/errors.ts';
import type { ReasonWith } from '../base/reasons.ts';
import type { QmpConnectOptions } from '../qmp/client.ts';
import { describeExit, type ExitInfo, type QemuProcess } from './process.ts';

const SOCKET_PAUSE_MS = 2;
const SOCKET_PAUSE_MAX_MS = 20;
/** A connection breaks a moment before the process that broke it is seen to have ended. */
const EXIT_SEEN_MS = 1000;
const SAID_CHARS_MAX = 2000;

/** What QmpClient.connect needs besides, for a QEMU that was just started. */
export type StartingUp = Required<Pick<QmpConnectOptions, 'path' | 'signal' | 'startingUp' | 'handshakeTimeoutMs'>>;

export interface FirstConnection<T> {
  readonly qemu: Pick<QemuProcess, 'exit' | 'exited'>;
  /** Of its QMP socket. */
  readonly path: string;
  /** Where its output goes. */
  readonly logFile: string;
  /** From now to the end of `connect`. */
  readonly timeoutMs: number;
  /** Whoever wants it gives up. */
  readonly signal?: AbortSignal;
  /** Connects, once the socket is there. */
  readonly connect: (start: StartingUp) => Promise<T>;
  /** The failure when the time is over, and QEMU lives. `notStarted` with TIMEOUT. */
  readonly timedOut?: () => ShimError | Promise<ShimError>;
  /** How the failure begins when QEMU has ended. `describeExit`. */
  readonly describe?: (exit: ExitInfo) => string;
  /** Of that failure. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Connects to a QEMU that was just started, as soon as it listens. When QEMU ends first, that is the failure to tell,
 * whichever trace of it is seen first: its socket is there before it has read its kernel.
 * @throws ShimError FAILED_PRECONDITION / QEMU_EXITED, with QEMU's own words; `timedOut`; the signal's reason; what
 *   `connect` throws
 */
export async function connectToStarted<T>(first: FirstConnection<T>): Promise<T> {
  const { qemu, path, timeoutMs, signal: givenUp } = first;
  const limit = AbortSignal.timeout(Math.ceil(timeoutMs));
  const ended = new AbortController();
  void qemu.exited.then(() => ended.abort());
  const signal = AbortSignal.any([limit, ended.signal, ...(givenUp === undefined ? [] : [givenUp])]);
  try {
    await appears(path, signal);
    // The limit ends the waiting with its own words.
    return await first.connect({ path, signal, startingUp: true, handshakeTimeoutMs: 2 * timeoutMs });
  } catch (error) {
    if (qemu.exit === undefined) {
      givenUp?.throwIfAborted();
      if (limit.aborted) throw await (first.timedOut?.() ?? notStarted(timeoutMs, 'TIMEOUT'));
    }
    const exit = await waitFor(qemu.exited, { milliseconds: EXIT_SEEN_MS }).catch(() => undefined);
    if (exit === undefined) throw error;
    const { describe = describeExit, metadata = {}, logFile } = first;
    throw await qemuFailure(describe(exit), logFile, { metadata, cause: error });
  }
}

/** FAILED_PRECONDITION / QEMU_EXITED: a sentence, and the end of what QEMU has written to its log. */
export async function qemuFailure(sentence: string, logFile: string, options: ShimErrorDetails): Promise<ShimError> {
  const said = (await readFile(logFile, 'utf8').catch(() => '')).trim().slice(-SAID_CHARS_MAX);
  const message = said === '' ? sentence : `${sentence}: ${said}`;
  return new ShimError('FAILED_PRECONDITION', message, { ...options, reason: 'QEMU_EXITED' });
}

async function appears(path: string, signal: AbortSignal): Promise<void> {
  const backoff = new Backoff(SOCKET_PAUSE_MS, SOCKET_PAUSE_MAX_MS);
  while (!(await exists(path))) await backoff.pause(signal);
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/** The failure when the time is over. */
export function notStarted(timeoutMs: number, reason: ReasonWith<'DEADLINE_EXCEEDED'>): ShimError {
  return new ShimError('DEADLINE_EXCEEDED', `QEMU did not start within ${timeoutMs} ms`, { reason });
}
