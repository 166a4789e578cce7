import { Backoff } from '../base/backoff.ts';
import { waitFor } from '../base/deadline.ts';
import { isShimError, messageOf } from '../base/errors.ts';
import type { LiveProcess } from './live-process.ts';

export const SIGKILL = 9;
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 10_000;

interface Signal {
  readonly signal: number;
  /** Every process of the container; only for its init. */
  readonly all: boolean;
}

interface Limits {
  /** How long the guest may take before it is asked for a sign of life. */
  readonly graceMs: number;
  /** Aborted when the daemon ends. */
  readonly leaving: AbortSignal;
}

/**
 * Sends a signal to a process in a guest that may not answer.
 *
 * - SIGKILL for a container must bring its end. When the guest gives no sign of life either, qshim ends the VM, which
 *   is the end of all that runs in it. Otherwise nobody could ever stop the pod: CRI stops no sandbox before its
 *   containers have ended.
 * - Any other signal for a container is taken as kill(2) takes one for a process that does not run just then: qshim
 *   delivers it when the guest answers again. CRI sends SIGKILL only after a first signal that did not fail.
 * - A signal for an exec fails: the container goes on, and so does its VM.
 *
 * @throws what the guest answers; ShimError for an exec whose guest does not answer, DEADLINE_EXCEEDED or as
 *   GuestAgent.exec
 */
export async function killProcess(live: LiveProcess, how: Signal, limits: Limits): Promise<void> {
  const killing = live.inGuest().kill(how.signal, { all: how.all });
  let error: unknown;
  try {
    await waitFor(killing, { milliseconds: limits.graceMs });
    return;
  } catch (caught) {
    error = caught;
  }
  const { pod } = live;
  const refused = isShimError(error) && error.reason === 'CONTAINER_STATE';
  if (refused || live.exec !== undefined || live.record.exit !== undefined) throw error;
  if (how.signal === SIGKILL) {
    // Late is not silent: a guest that answers has its time for the signal itself.
    if (await pod.containers.responds()) await killing;
    else await pod.endSilent(messageOf(error));
    return;
  }
  if (!isSilence(error)) throw error;
  const about = { containerId: live.container.id, signal: how.signal, problem: messageOf(error) };
  pod.log.warn(about, 'the guest does not answer; signal to be delivered when it does');
  deliverLater(live, how, limits.leaving).catch(() => undefined); // The daemon ends.
}

/** Says nothing of the process: the guest has not answered. */
function isSilence(error: unknown): boolean {
  return isShimError(error, 'DEADLINE_EXCEEDED', 'UNAVAILABLE') || isNotReady(error);
}

function isNotReady(error: unknown): boolean {
  return isShimError(error) && error.reason === 'GUEST_AGENT_NOT_READY';
}

/** Until the guest has it or refuses it, or the process has ended. @throws the reason of `leaving` */
async function deliverLater(live: LiveProcess, { signal, all }: Signal, leaving: AbortSignal): Promise<void> {
  const { pod, container, guest } = live;
  const backoff = new Backoff(RETRY_MIN_MS, RETRY_MAX_MS);
  while (guest !== undefined && live.record.exit === undefined && pod.snapshot?.state === 'running') {
    await backoff.pause(leaving);
    try {
      await waitFor(guest.kill(signal, { all }), { signal: leaving });
      return;
    } catch (error) {
      leaving.throwIfAborted();
      if (isSilence(error)) continue;
      pod.log.warn({ containerId: container.id, signal, problem: messageOf(error) }, 'signal not delivered');
      return;
    }
  }
}
