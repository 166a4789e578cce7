import { Backoff } from '../base/backoff.ts';
import { Deadline, waitFor } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import { wasNeverSent } from '../guest/channel-errors.ts';
import { unmount, type BusyProcess, type DiskIdentity } from '../guest/disks.ts';
import type { DiskUse } from '../guest/holders.ts';
import { unescapePoint } from '../guest/run-script.ts';
import { isDriven } from './driver-wait.ts';
import { closeInGuest, guestEncryption } from './guest-crypt.ts';
import type { VolumeHost } from './host.ts';
import type { Evidence } from './model/state.ts';
import type { Volume } from './volume.ts';

/**
 * What the guest has to say before its disk is taken away. DEVICE_DELETED does not mean that the guest was finished: a
 * disk leaves under a running write. So the guest is asked, and no answer is no leave.
 *
 *     without force ─▶ the agent answers ─▶ unmount and close what qshim made, or ask who uses the disk (holders)
 *                              │                 │ nobody: the disk may go      │ somebody: VOLUME_BUSY
 *                              └─ it does not: GUEST_NOT_ASKED
 *     with force ─▶ unmount and close what qshim made, for at most ASK_MS, whatever comes of it
 */

/** How long a guest may take to say what is still there, or to let go of a disk that is taken by force. */
export const ASK_MS = 8000;
const ASK_PAUSE_MIN_MS = 50;
const ASK_PAUSE_MAX_MS = 1000;
/** So much of a caller's time is kept for the way back to ATTACHED, so that the caller hears of it. */
const SETTLE_MS = 500;
/** A guest that still writes back what was mounted is asked again after rounds that double, up to this. */
const UNMOUNT_ROUND_MAX_MS = 24 * 3_600_000;
const NAMED_MAX = 8;

/** How long the guest of a caller that waits so long is asked: it may be slow, or its agent be away and come back. */
export function askMsFor(remainingMs: number): number {
  return Math.max(remainingMs - SETTLE_MS, remainingMs / 2);
}

export function isForced(volume: Volume): boolean {
  return volume.state.state === 'detaching' && volume.state.force;
}

/**
 * True when something in the guest is qshim's own to take away first, and asking therefore changes it: a mount, an open
 * encryption.
 */
export function holdsInGuest(volume: Volume): boolean {
  return volume.made.mount || volume.made.mapping;
}

/**
 * Has the guest let go of the disk of a DETACHING volume, or sees that nobody there uses it. By force, it does what can
 * be done. Force that comes later ends the waiting.
 * @param askMs how long the guest may take to say who uses the disk
 * @throws ShimError FAILED_PRECONDITION / VOLUME_BUSY; DEADLINE_EXCEEDED / GUEST_NOT_ASKED, when it is not known; what
 *   unmounting and closing throw; the reason of `host.gone`
 */
export async function letGo(host: VolumeHost, volume: Volume, askMs: number): Promise<void> {
  if (volume.state.state === 'detaching' && volume.state.deviceGone) return;
  if (!isForced(volume)) {
    try {
      const signal = AbortSignal.any([host.gone, volume.ask()]);
      await (holdsInGuest(volume)
        ? undo(host, volume, askMs, signal)
        : refuseUnlessUnused(host, volume, askMs, signal));
      return;
    } catch (error) {
      host.gone.throwIfAborted();
      if (!isForced(volume)) throw error;
    }
  }
  if (!holdsInGuest(volume)) return;
  const work = letGoInGuest(host, volume, { force: true, timeoutMs: ASK_MS });
  await waitFor(work, { milliseconds: ASK_MS, signal: host.gone }).catch((error: unknown) => {
    host.gone.throwIfAborted();
    host.log.warn(
      { volumeId: volume.id, problem: messageOf(error) },
      'disk is taken by force from a guest that keeps it',
    );
  });
}

/** Undoes what qshim made. The guest may take its time to write back; whether it answers at all is found out first. */
async function undo(host: VolumeHost, volume: Volume, askMs: number, signal: AbortSignal): Promise<void> {
  try {
    await waitFor(host.agent.waitReady({ timeoutMs: askMs, signal }), { milliseconds: askMs, signal });
  } catch (error) {
    signal.throwIfAborted();
    throw notAsked(host, volume, messageOf(error), error);
  }
  volume.answered();
  // Each round leaves a script behind in the guest that waits for the one before: few rounds, ever longer ones.
  const timeout = new Backoff(host.config.mount_timeout_ms, UNMOUNT_ROUND_MAX_MS);
  for (;;) {
    const work = letGoInGuest(host, volume, { force: false, timeoutMs: timeout.next() });
    try {
      await waitFor(work, { signal });
      return;
    } catch (error) {
      // The guest is still at it. The next question waits for the end of this one, and hears how it ended.
      if (!isShimError(error) || error.reason !== 'GUEST_EXEC_TIMEOUT') throw error;
      host.log.info({ volumeId: volume.id }, 'guest still writes back what was mounted, asking again');
    }
  }
}

async function letGoInGuest(host: VolumeHost, volume: Volume, options: LetGoOptions): Promise<void> {
  const qmp = await host.link.ready();
  const address = await host.addresses.of(qmp, volume.identity.slot);
  if (address === undefined) throw notAsked(host, volume, NOT_NUMBERED);
  let left: Left | undefined;
  try {
    left = await unmountAndClose(host, volume, address, options);
  } catch (error) {
    // A guest that has let go of the disk has nothing mounted from it. The unplug was asked for before, by a daemon
    // that did not live to see it.
    if (isShimError(error) && error.reason === 'GUEST_DISK_NOT_FOUND') {
      if (await isDriven(host, qmp, volume)) throw notAsked(host, volume, DRIVEN, error);
      return;
    }
    if (wasNeverSent(error)) throw notAsked(host, volume, messageOf(error), error);
    // How far the guest has come nobody has seen: it may still be at it.
    await noteLeft(host, volume, { busy: [], open: false, mountedAt: [] });
    throw error;
  }
  if (left === undefined) return;
  await noteLeft(host, volume, left);
  throw busy(host, volume, describe(left.busy), left.busy, left);
}

interface LetGoOptions {
  readonly force: boolean;
  readonly timeoutMs: number;
}

/** What a disk that is in use still has of what qshim made: a refusal may come half-way. */
interface Left {
  readonly busy: readonly BusyProcess[];
  readonly open: boolean;
  readonly mountedAt: readonly string[];
}

/**
 * Takes away in the guest what qshim made there of a volume: the mount, and the mapping below it. Detach and the undo
 * of an attach both do.
 * @returns undefined when the guest has let go
 * @throws ShimError as unmount and closeLuks2
 */
export async function unmountAndClose(
  host: VolumeHost,
  volume: Volume,
  pci: DiskIdentity['pci'],
  options: LetGoOptions,
): Promise<Left | undefined> {
  const { mount, serial } = volume.spec;
  if (guestEncryption(volume) !== undefined) {
    const result = await closeInGuest(host, volume, pci, options);
    return result.done ? undefined : result;
  }
  if (mount === undefined) return undefined;
  const result = await unmount(host.agent, { mountPoint: mount.mountPoint, pci, serial, ...options });
  if (!result.unmounted) return { ...result, open: false };
  host.volumes.apply(volume, { kind: 'mounted', mount: false });
  return undefined;
}

/** Should the volume stay, it stays without the evidence of what is there no more, or was not seen to be. */
async function noteLeft(host: VolumeHost, volume: Volume, { open, mountedAt }: Left): Promise<void> {
  using _held = await volume.mutex.acquire();
  if (volume.state.state !== 'detaching') return;
  const { guest } = volume.state;
  const gone = new Set<Evidence>();
  if (!isMounted(volume, mountedAt)) gone.add('guest-mount');
  if (!open) gone.add('guest-luks');
  const evidence = guest.evidence.filter((each) => !gone.has(each));
  if (evidence.length === guest.evidence.length) return;
  host.volumes.apply(volume, { kind: 'guest-seen', guest: { ...guest, evidence } });
  host.commitSoon();
}

function isMounted({ spec }: Volume, mountedAt: readonly string[]): boolean {
  return spec.mount !== undefined && mountedAt.includes(spec.mount.mountPoint);
}

/** A disk that qshim did not mount is somebody's all the same, unless the guest has been seen to have no use of it. */
async function refuseUnlessUnused(host: VolumeHost, volume: Volume, askMs: number, signal: AbortSignal): Promise<void> {
  const use = await useInGuest(host, volume, askMs, signal);
  if (use.there && use.users.length > 0) throw busy(host, volume, describe(use.users), use.users);
  volume.answered();
}

/**
 * Who uses the disk in the guest. An agent that is away may be back in time: the guest boots, or has started it anew.
 * @throws ShimError DEADLINE_EXCEEDED / GUEST_NOT_ASKED; the signal's reason
 */
async function useInGuest(host: VolumeHost, volume: Volume, askMs: number, signal: AbortSignal): Promise<DiskUse> {
  const deadline = Deadline.after(askMs);
  const backoff = new Backoff(ASK_PAUSE_MIN_MS, ASK_PAUSE_MAX_MS);
  const late = new Error(`it has not answered within ${Math.round(askMs)} ms`);
  let problem: unknown = late;
  for (;;) {
    try {
      const look = lookForUsers(host, volume);
      const use = await waitFor(look, { milliseconds: deadline.remainingMs, signal, onTimeout: () => late });
      if (use !== undefined) return use;
      problem = new Error(NOT_NUMBERED);
    } catch (error) {
      signal.throwIfAborted();
      // A look that was cut off says less than the one before it.
      if (error !== late) problem = error;
    }
    if (deadline.expired || isFinal(problem)) throw notAsked(host, volume, messageOf(problem), problem);
    await backoff.pause(signal, deadline);
  }
}

const NOT_NUMBERED = 'it has not numbered its PCI buses yet';
const DRIVEN = 'it does not list the disk, and a driver of its is live on it';

/** Undefined while it is not known where the guest sees the disk. */
async function lookForUsers(host: VolumeHost, volume: Volume): Promise<DiskUse | undefined> {
  const qmp = await host.link.ready();
  const pci = await host.addresses.of(qmp, volume.identity.slot);
  if (pci === undefined) return undefined;
  const use = await host.holders.of({ pci, serial: volume.spec.serial });
  if (!use.there && (await isDriven(host, qmp, volume))) throw new Error(DRIVEN);
  return use;
}

/** What another question would not change: the guest lacks a program, or cannot tell. */
function isFinal(error: unknown): boolean {
  return isShimError(error, 'UNIMPLEMENTED') || isShimError(error, 'FAILED_PRECONDITION');
}

/** The refusal to take a disk of which nobody knows whether it is in use. */
function notAsked(host: Pick<VolumeHost, 'id'>, volume: Volume, problem: string, cause?: unknown): ShimError {
  return new ShimError(
    'DEADLINE_EXCEEDED',
    `the guest has not said whether it uses volume ${volume.id}, and without that it is not taken away: ${problem}; detach with force (--force) takes it all the same`,
    {
      reason: 'GUEST_NOT_ASKED',
      metadata: {
        sandboxId: host.id,
        volumeId: volume.id,
        ...(isShimError(cause) ? { cause: cause.reason } : {}),
      },
      cause,
    },
  );
}

/** @param left when qshim's own mount was to be taken away: what is still there */
function busy(host: VolumeHost, volume: Volume, what: string, users: readonly BusyProcess[], left?: Left): ShimError {
  const { mount } = volume.spec;
  const mounted = left === undefined || mount === undefined ? undefined : isMounted(volume, left.mountedAt);
  const half = mounted === false ? `, though no longer mounted at ${mount?.mountPoint ?? ''}` : '';
  return new ShimError(
    'FAILED_PRECONDITION',
    `volume ${volume.id} is in use${half}: ${what}; detach with force takes it all the same`,
    {
      reason: 'VOLUME_BUSY',
      metadata: {
        sandboxId: host.id,
        volumeId: volume.id,
        busy: what,
        pids: users.map((one) => String(one.pid)).join(','),
        ...(mounted === undefined ? {} : { mounted: String(mounted) }),
      },
    },
  );
}

function describe(users: readonly BusyProcess[]): string {
  if (users.length === 0) return 'the guest says that the file system is busy';
  const more = users.length > NAMED_MAX ? ` and ${users.length - NAMED_MAX} more` : '';
  return `${users.slice(0, NAMED_MAX).map(nameOf).join(', ')}${more}`;
}

/** The kernel's own uses (BusyProcess), in words. */
const KERNEL_USES: Readonly<Record<string, (of: string) => string>> = {
  mount: (point) => `mounted in the guest at ${unescapePoint(point)}`,
  swap: (device) => `swap on ${device}`,
  holder: (device) => `below ${device}`,
  superblock: (type) => `a file system (${type}) that is mounted nowhere any more and still in use`,
};

function nameOf({ pid, command, what }: BusyProcess): string {
  const [kind = '', ...of] = what.split(':');
  const words = pid === 0 && of.length > 0 ? KERNEL_USES[kind] : undefined;
  return words === undefined ? `${command} (pid ${pid}, ${what})` : words(of.join(':'));
}
