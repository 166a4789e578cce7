import { Deadline, sleep, waitFor, type WaitLimits } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import { causeFrom, transition, type Evidence, type Transition } from './model/state.ts';
import { wasNeverSent } from '../guest/channel-errors.ts';
import type { BusyProcess } from '../guest/disks.ts';
import { asShimError } from '../qmp/errors.ts';
import { letGo, type Left } from './let-go.ts';
import { hasDevice, removeFromQemu } from './removal.ts';
import { Stopwatch } from '../base/stopwatch.ts';
import type { Volume } from './volume.ts';
import type { VolumeHost } from './host.ts';

/** How long a guest agent that may be away (the guest may be booting) is asked whether a disk is in use. */
const ASK_MOUNTS_MS = 3000;

export interface DetachOptions {
  readonly force: boolean;
  /** Of everything together: the wait for the volume's turn, and for the guest. */
  readonly timeoutMs: number;
  readonly callerWait?: AbortSignal;
}

/**
 * Begins to detach a volume, or joins the detach in progress, and waits for the end.
 * @param callerWait ends only this caller's waiting; the daemon goes on asking the guest
 * @throws ShimError FAILED_PRECONDITION / VOLUME_PENDING, VOLUME_BUSY; DEADLINE_EXCEEDED / GUEST_HOLDS_VOLUME, or
 *   CONCURRENT_OPERATION when the volume's own turn did not come and nothing was begun
 */
export async function detachVolume(host: VolumeHost, volume: Volume, options: DetachOptions): Promise<void> {
  const { force, timeoutMs, callerWait } = options;
  const deadline = Deadline.after(timeoutMs);
  const limits = (onTimeout: () => ShimError): WaitLimits => ({
    milliseconds: deadline.remainingMs,
    ...(callerWait === undefined ? {} : { signal: callerWait }),
    onTimeout,
  });
  const { removal } = await beginDetach(
    host,
    volume,
    force,
    limits(() => turnNotCome(host, volume, timeoutMs)),
  );
  if (removal === undefined) return;
  const holds = (): ShimError => guestHolds(host, volume, timeoutMs);
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

function guestHolds(host: VolumeHost, volume: Volume, timeoutMs: number): ShimError {
  return new ShimError(
    'DEADLINE_EXCEEDED',
    `the guest has not let go of volume ${volume.id} within ${timeoutMs} ms; the volume stays DETACHING and the daemon goes on asking`,
    { reason: 'GUEST_HOLDS_VOLUME', metadata: { sandboxId: host.id, volumeId: volume.id } },
  );
}

function turnNotCome(host: VolumeHost, volume: Volume, timeoutMs: number): ShimError {
  return new ShimError(
    'DEADLINE_EXCEEDED',
    `another operation on volume ${volume.id} has not ended within ${timeoutMs} ms; the detach was not begun`,
    { reason: 'CONCURRENT_OPERATION', metadata: { sandboxId: host.id, volumeId: volume.id } },
  );
}

/**
 * The removal to wait for, undefined when the volume is removed already. Wrapped, so that this does not wait for it.
 */
async function beginDetach(
  host: VolumeHost,
  volume: Volume,
  force: boolean,
  limits: WaitLimits,
): Promise<{ readonly removal: Promise<void> | undefined }> {
  // An attach may hold the mutex for as long as an image takes to be made; that it is refused meanwhile is known now.
  const early = transition(volume.state, { kind: 'detach', force });
  if (early.kind === 'denied') throw refused(host, volume, early);
  using _held = await volume.mutex.acquireForCaller(limits);
  // The phases of the attach are no news of the detach.
  if (volume.state.state === 'attached') host.volumes.apply(volume, { kind: 'timed', timings: [] });
  const result = host.volumes.apply(volume, { kind: 'detach', force });
  switch (result.kind) {
    case 'denied':
      throw refused(host, volume, result);
    case 'ignored':
      if (volume.isRemoved()) return { removal: undefined };
      // DETACHING with nobody at it: an adopted volume whose VM is not connected yet.
      if (volume.removal === undefined) startRemoval(host, volume);
      return { removal: volume.removal };
    case 'noted':
    case 'next':
      // A stronger demand (force) on a detach in progress joins it; it sees the new state.
      if (volume.removal === undefined) startRemoval(host, volume);
      return { removal: volume.removal };
  }
}

function refused(host: VolumeHost, volume: Volume, denial: Extract<Transition, { kind: 'denied' }>): ShimError {
  return new ShimError(denial.code, `volume ${volume.id} cannot be detached: ${denial.message}`, {
    reason: denial.reason,
    metadata: { sandboxId: host.id, volumeId: volume.id, state: volume.state.state },
  });
}

/** Starts to remove a DETACHING volume. The promise is kept on the volume, so that it never floats. */
export function startRemoval(host: VolumeHost, volume: Volume): void {
  volume.removeBy(carryOut(host, volume)).catch((error: unknown) => {
    host.log.info({ volumeId: volume.id, problem: messageOf(error) }, 'detach ended without removal');
  });
}

async function carryOut(host: VolumeHost, volume: Volume): Promise<void> {
  const watch = new Stopwatch();
  try {
    await recordAndAsk(host, volume);
  } catch (error) {
    host.gone.throwIfAborted();
    if (await refuse(host, volume, asShimError(error))) throw error;
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

function isForced(volume: Volume): boolean {
  return volume.state.state === 'detaching' && volume.state.force;
}

/**
 * Nothing is changed, in the guest or in QEMU, before the intent is on disk. Looking may begin at once: the guest is
 * asked while the record is being written.
 */
async function recordAndAsk(host: VolumeHost, volume: Volume): Promise<void> {
  const recorded = host.commit();
  const asked = holdsInGuest(volume) ? recorded.then(() => askGuest(host, volume)) : askGuest(host, volume);
  const [record, answer] = await Promise.allSettled([recorded, asked]);
  if (record.status === 'rejected') throw record.reason;
  if (answer.status === 'rejected') throw answer.reason;
}

/**
 * True when something in the guest is qshim's own to take away first, and asking therefore changes it: a mount, an open
 * encryption.
 */
function holdsInGuest(volume: Volume): boolean {
  return volume.made.mount || volume.made.mapping;
}

/**
 * DEVICE_DELETED does not mean that the guest was finished: a disk leaves under a running write. So the guest is asked.
 */
async function askGuest(host: VolumeHost, volume: Volume): Promise<void> {
  if (volume.state.state === 'detaching' && volume.state.deviceGone) return;
  if (holdsInGuest(volume)) {
    try {
      await letGoInGuest(host, volume);
    } catch (error) {
      // A guest that has let go of the disk has nothing mounted from it. The unplug was asked for before, by a daemon
      // that did not live to see it.
      if (!isShimError(error) || error.reason !== 'GUEST_DISK_NOT_FOUND') throw error;
    }
    return;
  }
  if (!host.agentReady || isForced(volume)) return;
  await refuseIfMounted(host, volume);
}

async function letGoInGuest(host: VolumeHost, volume: Volume): Promise<void> {
  const address = await host.addresses.of(await host.link.ready(), volume.identity.slot);
  if (address === undefined) return;
  let left: Left | undefined;
  try {
    const options = { force: isForced(volume), timeoutMs: host.config.mount_timeout_ms };
    left = await letGo(host, volume, address, options);
  } catch (error) {
    // How far the guest has come nobody has seen: it may still be at it.
    if (!wasNeverSent(error)) await noteLeft(host, volume, { busy: [], open: false, mountedAt: [] });
    throw error;
  }
  if (left === undefined) return;
  await noteLeft(host, volume, left);
  throw busy(host, volume, describe(left.busy), left);
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

/**
 * A disk that qshim did not mount itself but that has become somebody's file system is not taken away from under it.
 */
async function refuseIfMounted(host: VolumeHost, volume: Volume): Promise<void> {
  const address = await host.addresses.of(await host.link.ready(), volume.identity.slot);
  if (address === undefined) return;
  let mounts;
  try {
    mounts = await waitFor(host.agent.mounts(), { milliseconds: ASK_MOUNTS_MS, signal: host.gone });
  } catch (error) {
    host.gone.throwIfAborted();
    // A guest that cannot be asked (no agent any more, rebooting) cannot hold the unplug up for ever.
    host.log.warn({ volumeId: volume.id, problem: messageOf(error) }, 'guest could not be asked for its mounts');
    return;
  }
  const own = mounts.filter((mount) =>
    mount.disks.some((disk) => disk.pci?.bus === address.bus && disk.pci.slot === address.slot),
  );
  if (own.length === 0) return;
  throw busy(host, volume, `mounted in the guest at ${own.map((mount) => mount.mountPoint).join(', ')}`);
}

/** @param left when qshim's own mount was to be taken away: what is still there */
function busy(host: VolumeHost, volume: Volume, what: string, left?: Left): ShimError {
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
        pids: (left?.busy ?? []).map((one) => String(one.pid)).join(','),
        ...(mounted === undefined ? {} : { mounted: String(mounted) }),
      },
    },
  );
}

function describe(processes: readonly BusyProcess[]): string {
  if (processes.length === 0) return 'the guest says that the file system is busy';
  return processes
    .slice(0, 8)
    .map((one) => `${one.command} (pid ${one.pid}, ${one.what})`)
    .join(', ');
}
