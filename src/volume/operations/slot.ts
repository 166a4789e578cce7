import { isDeepStrictEqual } from 'node:util';
import { Backoff } from '../../base/backoff.ts';
import { isShimError, messageOf, ShimError } from '../../base/errors.ts';
import { asShimError } from '../../qmp/errors.ts';
import type { VolumeHost } from '../host.ts';
import {
  isCancellable,
  isSwitching,
  type Operation,
  type OperationProblem,
  type OperationProgress,
  type OperationView,
} from '../model/operation.ts';
import { OperationCancelled, type Volume } from '../volume.ts';

/**
 * Operations on volumes that stay attached:
 *
 *     resize.ts, ... ─▶ operate ─┬▶ store.begin (the slot) ─▶ commit ─▶ work ─▶ how it ended; the slot is free
 *     ... ─▶ startOperation ─────┘                                       ▲
 *     cancelOperation ─▶ commit ─▶ the work's signal ────────────────────┘
 *
 *     QEMU's answer was not seen ──────────────────────┐
 *     a daemon that comes back ─▶ resume.ts ─▶ operateAgain ─▶ look, or begin again, until the outcome was seen
 */

const AGAIN_PAUSE_MS = 100;
const AGAIN_PAUSE_MAX_MS = 5000;

/** What the work of an operation has from its slot. */
export interface OperationRun {
  /**
   * Aborted when somebody wants the operation cancelled, or the VM is gone. Work of a kind that is cancellable
   * (model/operation.ts) leaves the volume as it was, and throws OperationCancelled.
   */
  readonly signal: AbortSignal;
  /** Tells how far it is. */
  progress(progress: OperationProgress): void;
  /** Keeps what a later daemon needs to know of the step that it comes to. @throws JOURNAL_WRITE_FAILED */
  record(operation: Operation): Promise<void>;
}

/** What an operation does. */
interface Work<T> {
  readonly work: (run: OperationRun) => Promise<T>;
  /** Sees what became of it, or does it again, when that was not seen: by this daemon, or by the one before. */
  readonly again: (run: OperationRun) => Promise<void>;
}

/**
 * Does something to a volume that stays attached, in the volume's one slot for that (model/operation.ts). The journal
 * says so before `work` begins, and until its outcome was seen: after a connection that broke, and by a daemon that
 * comes back (resume.ts), it is taken up again.
 * @returns what `work` returns: each call does its own
 * @throws ShimError FAILED_PRECONDITION / OPERATION_IN_PROGRESS that names the other one; UNAVAILABLE /
 *   JOURNAL_WRITE_FAILED; what `work` throws
 */
export async function operate<T>(host: VolumeHost, volume: Volume, operation: Operation, work: Work<T>): Promise<T> {
  host.volumes.begin(volume, operation);
  const done = carryOut(host, volume, work, Promise.withResolvers<undefined>());
  await volume.operateBy(done.then(() => undefined));
  return await done;
}

/**
 * As operate; but the same operation again joins the one under way. Only for operations whose record is all of the
 * request: of a change of keys it tells the kind alone, and not which keys.
 */
export async function joinOrOperate(
  host: VolumeHost,
  volume: Volume,
  operation: Operation & { readonly kind: 'resize' },
  work: Work<void>,
): Promise<void> {
  const { operating } = volume;
  if (operating !== undefined && isDeepStrictEqual(volume.operation, operation)) await operating;
  else await operate(host, volume, operation, work);
}

/**
 * As operate, without waiting for its end: it is answered once it is in the journal, and callers follow it by its id.
 * The same id again is answered with what became of it.
 * @param id the caller's; empty: one is made
 * @throws ShimError as operate, but for what `work` throws; ALREADY_EXISTS / OPERATION_EXISTS when the id is that of
 *   another request
 */
export async function startOperation(
  host: VolumeHost,
  volume: Volume,
  operation: Operation,
  work: Work<void>,
  id: string,
): Promise<OperationView> {
  const known = repeated(volume, operation, id);
  if (known !== undefined) return known;
  host.volumes.begin(volume, operation, id === '' ? undefined : id);
  const view = lastView(volume);
  const begun = Promise.withResolvers<undefined>();
  const done = volume.operateBy(carryOut(host, volume, work, begun));
  // How it ended is on record; whoever waits for it follows that.
  done.catch(() => undefined);
  await begun.promise;
  return findView(volume, view.id) ?? view;
}

/** The operation that a call of this id repeats, if any. */
function repeated(volume: Volume, operation: Operation, id: string): OperationView | undefined {
  const view = id === '' ? undefined : findView(volume, id);
  if (view === undefined) return undefined;
  // The record of one that has ended tells its kind alone.
  const same = view.ended === undefined ? isSameRequest(volume.operation, operation) : view.kind === operation.kind;
  if (same) return view;
  throw new ShimError('ALREADY_EXISTS', `operation ${id} of volume ${volume.id} exists already, with another request`, {
    reason: 'OPERATION_EXISTS',
    metadata: { volumeId: volume.id, operationId: id },
  });
}

/** Whether two records are of the same request: `step` is what has become of it. */
function isSameRequest(one: Operation | undefined, other: Operation): boolean {
  const request = (operation: Operation | undefined): object => ({ ...operation, step: undefined });
  return isDeepStrictEqual(request(one), request(other));
}

function findView(volume: Volume, id: string): OperationView | undefined {
  return volume.snapshot().operations.find((one) => one.id === id);
}

function lastView(volume: Volume): OperationView {
  const last = volume.snapshot().operations.at(-1);
  if (last === undefined) throw new Error('no operation was begun');
  return last;
}

/**
 * Has an operation cancelled: its work goes back to where it began, which callers see by its outcome. One that has
 * ended stays as it is. A daemon that comes back goes on with it.
 * @throws ShimError NOT_FOUND / OPERATION_NOT_FOUND; FAILED_PRECONDITION / OPERATION_NOT_CANCELLABLE; UNAVAILABLE /
 *   JOURNAL_WRITE_FAILED
 */
export async function cancelOperation(host: VolumeHost, volume: Volume, id: string): Promise<OperationView> {
  const view = findView(volume, id);
  if (view === undefined) throw operationNotFound(host.id, id);
  if (view.ended !== undefined) return view;
  const { operation } = volume;
  if (operation === undefined || !isCancellable(operation)) {
    throw new ShimError(
      'FAILED_PRECONDITION',
      `operation ${id} (${view.kind}) cannot be cancelled: it ends by itself`,
      {
        reason: 'OPERATION_NOT_CANCELLABLE',
        metadata: { sandboxId: host.id, volumeId: volume.id, operationId: id },
      },
    );
  }
  host.volumes.apply(volume, { kind: 'operation-cancel' });
  await host.commit();
  volume.cancel();
  return findView(volume, id) ?? view;
}

export function operationNotFound(sandboxId: string, id: string): ShimError {
  return new ShimError('NOT_FOUND', `sandbox ${sandboxId} has no operation ${id}, or remembers it no more`, {
    reason: 'OPERATION_NOT_FOUND',
    metadata: { sandboxId, operationId: id },
  });
}

/** Takes up what was begun, and whose outcome was not seen; its slot is taken already. Never rejects but at the end. */
export async function operateAgain(host: VolumeHost, volume: Volume, again: Work<unknown>['again']): Promise<void> {
  try {
    await volume.operateBy(untilSeen(host, volume, again));
  } catch (error) {
    host.gone.throwIfAborted();
    const { id: volumeId, operation } = volume;
    host.log.warn({ volumeId, operation, problem: messageOf(error) }, 'operation taken up again has failed');
  }
}

async function carryOut<T>(
  host: VolumeHost,
  volume: Volume,
  { work, again }: Work<T>,
  begun: PromiseWithResolvers<undefined>,
): Promise<T> {
  begun.promise.catch(() => undefined);
  try {
    const run = runOf(host, volume);
    await host.commit();
    begun.resolve(undefined);
    const done = await work(run);
    ended(host, volume);
    return done;
  } catch (error) {
    // Begun at once, so that nobody finds the slot taken and nobody at it.
    if (isUnseen(error)) host.inBackground('operation', operateAgain(host, volume, again));
    else ended(host, volume, error);
    begun.reject(error);
    throw error;
  }
}

async function untilSeen(host: VolumeHost, volume: Volume, again: Work<unknown>['again']): Promise<void> {
  const backoff = new Backoff(AGAIN_PAUSE_MS, AGAIN_PAUSE_MAX_MS);
  const run = runOf(host, volume);
  try {
    for (;;) {
      try {
        await host.link.ready();
        await again(run);
        ended(host, volume);
        return;
      } catch (error) {
        host.gone.throwIfAborted();
        if (!isUnseen(error)) throw error;
      }
      await backoff.pause(host.gone);
    }
  } catch (error) {
    ended(host, volume, error);
    throw error;
  }
}

function runOf(host: VolumeHost, volume: Volume): OperationRun {
  return {
    signal: AbortSignal.any([host.gone, volume.cancellation()]),
    progress: (progress) => void host.volumes.apply(volume, { kind: 'operation-progress', progress }),
    record: async (operation) => {
      host.volumes.apply(volume, { kind: 'operation-changed', operation });
      await host.commit();
    },
  };
}

/**
 * Its outcome was seen, or the VM has gone; unless the daemon only leaves: what is not finished is the next one's.
 * @param error undefined: it has done what was asked for
 */
function ended(host: VolumeHost, volume: Volume, error?: unknown): void {
  const { gone } = host;
  if (gone.aborted && isShimError(gone.reason, 'UNAVAILABLE') && gone.reason.reason === 'DAEMON_STOPPING') return;
  // It ends with its volume (model/facts.ts): until then its record keeps what may be the last copy.
  if (gone.aborted && isSwitching(volume.operation)) return;
  const cancelled = error instanceof OperationCancelled;
  const problem = error === undefined || cancelled ? undefined : problemOf(error);
  host.volumes.apply(volume, { kind: 'operation-ended', cancelled, problem });
  host.commitSoon();
}

function problemOf(error: unknown): OperationProblem {
  const { code, reason, message, metadata } = asShimError(error);
  return { code, reason, message, metadata: { ...metadata } };
}

/** QEMU was asked, or was to be, and its answer is not known: it may have done it. */
function isUnseen(error: unknown): boolean {
  return isShimError(error) && (error.reason === 'QMP_LOST' || error.reason === 'QMP_REPLY_TIMEOUT');
}
