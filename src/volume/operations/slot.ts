import { isDeepStrictEqual } from 'node:util';
import { Backoff } from '../../base/backoff.ts';
import { isShimError, messageOf } from '../../base/errors.ts';
import type { VolumeHost } from '../host.ts';
import type { Operation } from '../model/operation.ts';
import type { Volume } from '../volume.ts';

/**
 * Operations on volumes that stay attached:
 *
 *     resize.ts, key-slots.ts ─▶ operate ─▶ store.begin (the slot) ─▶ commit ─▶ work ─▶ the slot is free
 *     QEMU's answer was not seen ──────────────────────┐
 *     a daemon that comes back ─▶ resume.ts ─▶ operateAgain ─▶ look, or begin again, until the outcome was seen
 */

const AGAIN_PAUSE_MS = 100;
const AGAIN_PAUSE_MAX_MS = 5000;

/** What an operation does. */
interface Work<T> {
  readonly work: () => Promise<T>;
  /** Sees what became of it, or does it again, when that was not seen: by this daemon, or by the one before. */
  readonly again: () => Promise<void>;
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
  const done = carryOut(host, volume, work);
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

/** Takes up what was begun, and whose outcome was not seen; its slot is taken already. Never rejects but at the end. */
export async function operateAgain(host: VolumeHost, volume: Volume, again: () => Promise<void>): Promise<void> {
  try {
    await volume.operateBy(untilSeen(host, volume, again));
  } catch (error) {
    host.gone.throwIfAborted();
    const { id: volumeId, operation } = volume;
    host.log.warn({ volumeId, operation, problem: messageOf(error) }, 'operation taken up again has failed');
  }
}

async function carryOut<T>(host: VolumeHost, volume: Volume, { work, again }: Work<T>): Promise<T> {
  try {
    await host.commit();
    const done = await work();
    ended(host, volume);
    return done;
  } catch (error) {
    // Begun at once, so that nobody finds the slot taken and nobody at it.
    if (isUnseen(error)) host.inBackground('operation', operateAgain(host, volume, again));
    else ended(host, volume);
    throw error;
  }
}

async function untilSeen(host: VolumeHost, volume: Volume, again: () => Promise<void>): Promise<void> {
  const backoff = new Backoff(AGAIN_PAUSE_MS, AGAIN_PAUSE_MAX_MS);
  try {
    for (;;) {
      try {
        await host.link.ready();
        await again();
        return;
      } catch (error) {
        host.gone.throwIfAborted();
        if (!isUnseen(error)) throw error;
      }
      await backoff.pause(host.gone);
    }
  } finally {
    ended(host, volume);
  }
}

/** Its outcome was seen, or the VM has gone; unless the daemon only leaves: what is not finished is the next one's. */
function ended(host: VolumeHost, volume: Volume): void {
  const { gone } = host;
  if (gone.aborted && isShimError(gone.reason, 'UNAVAILABLE') && gone.reason.reason === 'DAEMON_STOPPING') return;
  host.volumes.apply(volume, { kind: 'operation', operation: undefined });
  host.commitSoon();
}

/** QEMU was asked, or was to be, and its answer is not known: it may have done it. */
function isUnseen(error: unknown): boolean {
  return isShimError(error) && (error.reason === 'QMP_LOST' || error.reason === 'QMP_REPLY_TIMEOUT');
}
