import { Deadline, sleep, waitFor, type WaitLimits } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import { causeFrom, transition, type Cause, type Transition } from './model/state.ts';
import { asShimError } from '../qmp/errors.ts';
import { askMsFor, holdsInGuest, isForced, letGo } from './let-go.ts';
import { hasDevice, removeFromQemu } from './removal.ts';
import { Stopwatch } from '../base/stopwatch.ts';
import type { Volume } from './volume.ts';
import type { VolumeHost } from './host.ts';

export interface DetachOptions {
  readonly force: boolean;
  /** Of everything together: the wait for the volume's turn, and for the guest. */
  readonly timeoutMs: number;
  readonly callerWait?: AbortSignal;
  /** Why, where no caller asked for it, and whether that still holds as its turn comes. */
  readonly because?: { readonly cause: Cause; readonly holds: () => boolean };
}

/**
 * Begins to detach a volume, or joins the detach in progress, and waits for the end.
 * @param callerWait ends only this caller's waiting; the daemon goes on asking the guest
 * @throws ShimError FAILED_PRECONDITION / VOLUME_PENDING, VOLUME_BUSY; DEADLINE_EXCEEDED: GUEST_NOT_ASKED, when the
 *   guest has not said that nobody uses it, and the volume is ATTACHED again; GUEST_HOLDS_VOLUME, when it still may;
 *   QEMU_HOLDS_VOLUME, when the guest has let go and QEMU has not; OPERATION_IN_PROGRESS or CONCURRENT_OPERATION, when
 *   the volume's turn did not come and nothing was begun
 */
export async function detachVolume(host: VolumeHost, volume: Volume, options: DetachOptions): Promise<void> {
  const { timeoutMs, callerWait } = options;
  const deadline = Deadline.after(timeoutMs);
  const limits = (onTimeout: () => ShimError): WaitLimits => ({
    milliseconds: deadline.remainingMs,
    ...(callerWait === undefined ? {} : { signal: callerWait }),
    onTimeout,
  });
  const turn = (): WaitLimits => limits(() => turnNotCome(host, volume, timeoutMs));
  const { removal } = await beginDetach(host, volume, options, deadline, turn);
  if (removal === undefined) return;
  const holds = (): ShimError => notGone(host, volume, timeoutMs);
  try {
    await waitFor(removal, limits(holds));
  } catch (error) {
    if (
      !host.gone.aborted ||
      error !== host.gone.reason ||
      (isShimError(error, 'UNAVAILABLE') && error.reason === 'DAEMON_STOPPING')
    )
      throw error;
    // The VM is on its way out. Its end removes the volume, which is what the caller wanted: wait until that is seen.
    await waitFor(host.stopped, limits(holds));
  }
}

/** Who has not let go, as far as it was seen. */
function notGone(host: VolumeHost, volume: Volume, timeoutMs: number): ShimError {
  const { state, heldBy } = volume;
  const metadata = { sandboxId: host.id, volumeId: volume.id };
  const goesOn =
    'the volume stays DETACHING and the daemon goes on asking, until it is removed, or ATTACHED again with the cause';
  if (state.state === 'detaching' && state.deviceGone && heldBy !== undefined) {
    const message = `the guest has let go of volume ${volume.id}, and QEMU has not within ${timeoutMs} ms: ${heldBy}; ${goesOn}`;
    return new ShimError('DEADLINE_EXCEEDED', message, {
      reason: 'QEMU_HOLDS_VOLUME',
      metadata: { ...metadata, holder: heldBy },
    });
  }
  // The question may be another caller's, who waits longer; or its answer is known and not settled yet.
  const what = volume.asking ? 'has not said whether it uses' : 'has not let go of';
  const message = `the guest ${what} volume ${volume.id} within ${timeoutMs} ms; ${goesOn}`;
  return new ShimError('DEADLINE_EXCEEDED', message, { reason: 'GUEST_HOLDS_VOLUME', metadata });
}

function turnNotCome(host: VolumeHost, volume: Volume, timeoutMs: number): ShimError {
  const { operation } = volume;
  const what = operation === undefined ? 'another operation' : `an operation (${operation.kind})`;
  return new ShimError(
    'DEADLINE_EXCEEDED',
    `${what} on volume ${volume.id} has not ended within ${timeoutMs} ms; the detach was not begun`,
    {
      reason: operation === undefined ? 'CONCURRENT_OPERATION' : 'OPERATION_IN_PROGRESS',
      metadata: {
        sandboxId: host.id,
        volumeId: volume.id,
        ...(operation === undefined ? {} : { operation: operation.kind }),
      },
    },
  );
}

/**
 * The volume's mutex, once no operation is under way on it: what works on a disk that leaves would fail half-way. Force
 * does not wait for that.
 */
async function takeTurn(host: VolumeHost, volume: Volume, force: boolean, turn: () => WaitLimits): Promise<Disposable> {
  for (;;) {
    if (!force && volume.operation !== undefined) {
      // One that an earlier daemon began is taken up with the connection.
      if (volume.operating === undefined) await waitFor(host.link.ready(), turn());
      if (volume.operating !== undefined) {
        await waitFor(
          volume.operating.catch(() => undefined),
          turn(),
        );
        host.gone.throwIfAborted();
      }
    }
    const held = await volume.mutex.acquireForCaller(turn());
    if (force || volume.operating === undefined) return held;
    held[Symbol.dispose]();
  }
}

/**
 * The removal to wait for, undefined when the volume is removed already. Wrapped, so that this does not wait for it.
 */
async function beginDetach(
  host: VolumeHost,
  volume: Volume,
  { force, because }: DetachOptions,
  deadline: Deadline,
  turn: () => WaitLimits,
): Promise<{ readonly removal: Promise<void> | undefined }> {
  // An attach may hold the mutex for as long as an image takes to be made; that it is refused meanwhile is known now.
  const early = transition(volume.state, { kind: 'detach', force });
  if (early.kind === 'denied') throw refused(host, volume, early);
  using _held = await takeTurn(host, volume, force, turn);
  if (because?.holds() === false) throw noMore(host, volume);
  // The phases of the attach are no news of the detach.
  if (volume.state.state === 'attached') host.volumes.apply(volume, { kind: 'timed', timings: [] });
  const result = host.volumes.apply(volume, { kind: 'detach', force, ...(because && { cause: because.cause }) });
  switch (result.kind) {
    case 'denied':
      throw refused(host, volume, result);
    case 'ignored':
      if (volume.isRemoved()) return { removal: undefined };
      // DETACHING with nobody at it: an adopted volume whose VM is not connected yet.
      if (volume.removal === undefined) startRemoval(host, volume, askMsFor(deadline.remainingMs));
      return { removal: volume.removal };
    case 'noted':
    case 'next':
      // A stronger demand (force) on a detach in progress joins it; it sees the new state, and waits for no answer.
      if (volume.removal === undefined) startRemoval(host, volume, askMsFor(deadline.remainingMs));
      else volume.hurry();
      return { removal: volume.removal };
  }
}

function noMore(host: VolumeHost, volume: Volume): ShimError {
  return new ShimError('ABORTED', `volume ${volume.id} is not to be detached any more`, {
    reason: 'CONCURRENT_OPERATION',
    metadata: { sandboxId: host.id, volumeId: volume.id, state: volume.state.state },
  });
}

function refused(host: VolumeHost, volume: Volume, denial: Extract<Transition, { kind: 'denied' }>): ShimError {
  return new ShimError(denial.code, `volume ${volume.id} cannot be detached: ${denial.message}`, {
    reason: denial.reason,
    metadata: { sandboxId: host.id, volumeId: volume.id, state: volume.state.state },
  });
}

/**
 * Starts to remove a DETACHING volume. The promise is kept on the volume, so that it never floats.
 * @param askMs how long the guest may take to say who uses it
 */
export function startRemoval(host: VolumeHost, volume: Volume, askMs: number = host.config.detach_timeout_ms): void {
  volume.removeBy(carryOut(host, volume, askMs)).catch((error: unknown) => {
    host.log.info({ volumeId: volume.id, problem: messageOf(error) }, 'detach ended without removal');
  });
}

async function carryOut(host: VolumeHost, volume: Volume, askMs: number): Promise<void> {
  const watch = new Stopwatch();
  try {
    await recordAndAsk(host, volume, askMs);
  } catch (error) {
    host.gone.throwIfAborted();
    if (await refuse(host, volume, asShimError(error))) throw error;
  } finally {
    volume.answered();
  }
  watch.lap('ask-guest');
  await removeFromQemu(host, volume, watch);
}

/**
 * Back to ATTACHED, unless the device has gone all the same: an earlier daemon may have asked for that. True when
 * refused. Asked again until QEMU has answered, as a removal is: a DETACHING volume with nobody at it would stay so.
 * @throws the reason of `host.gone`
 */
async function refuse(host: VolumeHost, volume: Volume, error: ShimError): Promise<boolean> {
  for (;;) {
    try {
      return await refuseOnce(host, volume, error);
    } catch (problem) {
      host.gone.throwIfAborted();
      host.log.warn({ volumeId: volume.id, problem: messageOf(problem) }, 'refused detach not settled, trying again');
    }
    await sleep(host.config.unplug_retry_ms, host.gone);
  }
}

async function refuseOnce(host: VolumeHost, volume: Volume, error: ShimError): Promise<boolean> {
  await host.link.ready();
  using _held = await volume.mutex.acquire();
  // What cannot be written down is not done, force or not. What the guest refuses, force does all the same.
  if (isForced(volume) && error.reason !== 'JOURNAL_WRITE_FAILED') return false;
  if (!(await hasDevice(host, volume.names.device))) return false;
  const result = host.volumes.apply(volume, { kind: 'guest-refused', cause: causeFrom(error) });
  host.commitSoon();
  return result.kind === 'next';
}

/**
 * Nothing is changed, in the guest or in QEMU, before the intent is on disk. Looking may begin at once: the guest is
 * asked while the record is being written.
 */
async function recordAndAsk(host: VolumeHost, volume: Volume, askMs: number): Promise<void> {
  const recorded = host.commit();
  const ask = (): Promise<void> => letGo(host, volume, askMs);
  const asked = holdsInGuest(volume) ? recorded.then(ask) : ask();
  const [record, answer] = await Promise.allSettled([recorded, asked]);
  if (record.status === 'rejected') throw record.reason;
  if (answer.status === 'rejected') throw answer.reason;
}
