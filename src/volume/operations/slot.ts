import { isDeepStrictEqual } from 'node:util';
import { isShimError, messageOf } from '../../base/errors.ts';
import type { VolumeHost } from '../host.ts';
import type { Operation } from '../model/operation.ts';
import type { Volume } from '../volume.ts';

/**
 * Operations on volumes that stay attached:
 *
 *     resize.ts, key-slots.ts ─▶ operate ─▶ store.begin (the slot) ─▶ commit ─▶ work ─▶ the slot is free
 *     a daemon that comes back ─▶ resume.ts ─▶ operateAgain
 */

/**
 * Does something to a volume that stays attached, in the volume's one slot for that (model/operation.ts). The journal
 * says so before `work` begins, and until it has ended: a daemon that comes back takes it up again (resume.ts).
 * @returns what `work` returns: each call does its own
 * @throws ShimError FAILED_PRECONDITION / OPERATION_IN_PROGRESS that names the other one; UNAVAILABLE /
 *   JOURNAL_WRITE_FAILED; what `work` throws
 */
export async function operate<T>(
  host: VolumeHost,
  volume: Volume,
  operation: Operation,
  work: () => Promise<T>,
): Promise<T> {
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
  work: () => Promise<void>,
): Promise<void> {
  const { operating } = volume;
  if (operating !== undefined && isDeepStrictEqual(volume.operation, operation)) await operating;
  else await operate(host, volume, operation, work);
}

/** Takes up what an earlier daemon had begun; its slot is taken already. */
export async function operateAgain(host: VolumeHost, volume: Volume, work: () => Promise<void>): Promise<void> {
  try {
    await volume.operateBy(carryOut(host, volume, work));
  } catch (error) {
    host.gone.throwIfAborted();
    const { operation } = volume;
    host.log.warn({ volumeId: volume.id, operation, problem: messageOf(error) }, 'operation taken up again has failed');
  }
}

async function carryOut<T>(host: VolumeHost, volume: Volume, work: () => Promise<T>): Promise<T> {
  try {
    await host.commit();
    return await work();
  } finally {
    if (!isLeaving(host)) {
      host.volumes.apply(volume, { kind: 'operation', operation: undefined });
      host.commitSoon();
    }
  }
}

/** The daemon ends and the VM goes on: what is not finished is the next daemon's. */
function isLeaving({ gone }: VolumeHost): boolean {
  return gone.aborted && isShimError(gone.reason, 'UNAVAILABLE') && gone.reason.reason === 'DAEMON_STOPPING';
}
