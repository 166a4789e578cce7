import { Backoff } from '../base/backoff.ts';
import { Deadline, monotonicMs, waitFor } from '../base/deadline.ts';
import { ShimError, isShimError, messageOf } from '../base/errors.ts';
import { Stopwatch } from '../base/stopwatch.ts';
import { prepareMount } from '../guest/disks.ts';
import type { KeyMaterial } from '../keys/material.ts';
import type { QmpClient } from '../qmp/client.ts';
import { asShimError } from '../qmp/errors.ts';
import { addVolume } from './add.ts';
import { formatAddress, type GuestPciAddress } from './guest-addresses.ts';
import { guestEncryption, openInGuest } from './guest-crypt.ts';
import type { VolumeHost } from './host.ts';
import { fetchKey } from './key.ts';
import { unmountAndClose } from './let-go.ts';
import { causeFrom, type Cause, type Evidence, type GuestView } from './model/state.ts';
import { guestSteps, type GuestStep } from './plan.ts';
import { limitAttached } from './operations/limits.ts';
import { removeFromQemu } from './removal.ts';
import type { Volume } from './volume.ts';

/** How long the agent may take to list a disk whose driver is known to be live. */
const FIND_IN_GUEST_MS = 2000;
/** How long after DRIVER_OK a guest that is to mount the disk may take to list it. */
const LISTED_MAX_MS = 10_000;
const UNDO_UNMOUNT_MS = 10_000;
const FIND_PAUSE_MIN_MS = 3;
/**
 * How long after its driver was seen to be live a disk may take to be announced; Linux sets DRIVER_OK a moment before.
 */
const ANNOUNCED_MAX_MS = 500;
const FIND_PAUSE_MAX_MS = 50;

/**
 *     manager.attach ─▶ attachVolume ─ under the mutex ─▶ addToQemu (add.ts: the list of objects) ─▶ QMP
 *                            │
 *                            └─ without it ─▶ settle ─ the guest's steps ─▶ driver-wait, agent ─▶ driver-live: ATTACHED
 *     any failure ─▶ undoAttach ─▶ removal.ts, to its proof ─▶ REMOVED
 */

/**
 * Attaches a PENDING volume: block node, front end, then the wait for the guest. Ends with the volume ATTACHED, or,
 * when a step fails, with all of it undone and the volume REMOVED. Runs to its end whatever its callers do (locking
 * rule 6).
 * @throws ShimError the first failure; when the undo could not be finished in time, it goes on after this has thrown
 */
export async function attachVolume(host: VolumeHost, volume: Volume, timeoutMs: number): Promise<void> {
  const watch = new Stopwatch();
  const deadline = Deadline.after(timeoutMs);
  try {
    using key = await fetchKey(host, volume.spec);
    if (key !== undefined) watch.lap('key');
    if (await host.fence.untilSettled(volume.identity.slot, deadline)) watch.lap('slot');
    await addToQemu(host, volume, key, watch);
    await settle(host, volume, key, deadline, watch);
  } catch (error) {
    // What a VM that is on its way out refuses, it refuses for that.
    const problem = asShimError(host.gone.aborted ? host.gone.reason : error);
    await undoAttach(host, volume, problem, timeoutMs);
    // A connection breaks a moment before the process that broke it is seen to have ended: that is what to tell.
    throw problem.reason === 'QMP_LOST' && host.gone.aborted ? asShimError(host.gone.reason) : problem;
  }
  // The caller hears ATTACHED once the record says so too: the next daemon must neither ask for the key of a volume
  // that is in use, nor undo it because its guest is slow. The volume is what it is even when this cannot be written.
  await host.commit().catch((error: unknown) => {
    host.log.warn({ volumeId: volume.id, problem: messageOf(error) }, 'ATTACHED is not in the journal yet');
  });
}

/** The steps that change QEMU, under the device's mutex, with the intent on disk first. */
async function addToQemu(
  host: VolumeHost,
  volume: Volume,
  key: KeyMaterial | undefined,
  watch: Stopwatch,
): Promise<void> {
  using _held = await volume.mutex.acquire();
  host.gone.throwIfAborted();
  await host.commit();
  watch.lap('journal');
  // Nothing has been asked of QEMU yet, so a connection that is being made again is waited for.
  const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
  await expectDisk(host, volume, qmp);
  // While QEMU works, the agent can be found out to be there; unless it will not be asked, and would only take the
  // guest's time.
  if (host.agentReady && willAskAgent(volume)) host.agent.warmUp();
  await addVolume(host, qmp, volume, key, watch);
}

function willAskAgent(volume: Volume): boolean {
  const named = volume.arrival?.certain === true;
  return !named || volume.spec.mount !== undefined || guestEncryption(volume) !== undefined;
}

/**
 * Listens before the device is there. Without an address, which a guest that still boots has not given, nothing is
 * expected.
 */
async function expectDisk(host: VolumeHost, volume: Volume, qmp: QmpClient, mayBeThere = false): Promise<void> {
  const address = await host.addresses.of(qmp, volume.identity.slot);
  if (address === undefined) return;
  volume.expect(() => host.guestEvents.expect(formatAddress(address), mayBeThere));
}

/**
 * Limits the volume's I/O where its spec says so, settles it in the guest, and takes note of it: ATTACHED. What was
 * seen in a boot that a reset has ended meanwhile is made and looked at anew.
 * @throws ShimError as the guest's part does; FAILED_PRECONDITION / DEVICE_VANISHED; the reason of `host.gone`
 */
export async function settle(
  host: VolumeHost,
  volume: Volume,
  key: KeyMaterial | undefined,
  deadline: Deadline,
  watch: Stopwatch,
): Promise<void> {
  await limitAttached(host, volume);
  if (volume.spec.limits !== undefined || volume.spec.draw !== undefined) watch.lap('limits');
  for (;;) {
    const { boot } = host;
    const guest = await settleInGuest(host, volume, key, deadline, watch);
    using _held = await volume.mutex.acquire();
    // Re-checked after every re-acquire: the VM may have gone, the device may have vanished (locking rule 4).
    host.gone.throwIfAborted();
    if (host.boot !== boot) continue;
    host.volumes.apply(volume, { kind: 'timed', timings: watch.timings });
    const result = host.volumes.apply(volume, { kind: 'driver-live', guest });
    host.unplugs.moved();
    if (result.kind !== 'next') throw vanished(volume);
    host.stats.mayLackHistograms();
    return;
  }
}

/** How things stand in the guest; nothing is changed there. `formatted` is never seen. */
export async function lookInGuest(host: VolumeHost, volume: Volume, deadline: Deadline): Promise<GuestView> {
  const sinceMs = monotonicMs();
  const evidence: Evidence[] = [await host.drivers.untilLive(volume, deadline)];
  const address = await host.addresses.of(await host.link.ready(), volume.identity.slot);
  const device = await findInGuest(host, volume, { address, sinceMs }, deadline);
  if (device !== undefined) evidence.push('guest-agent');
  return { pciAddress: address && formatAddress(address), device, evidence, formatted: false };
}

/** What the steps in the guest have come to see, one after the other. */
interface InGuest {
  readonly host: VolumeHost;
  readonly volume: Volume;
  readonly key: KeyMaterial | undefined;
  readonly deadline: Deadline;
  readonly watch: Stopwatch;
  readonly sinceMs: number;
  readonly evidence: Evidence[];
  address: GuestPciAddress | undefined;
  /** The name under which the guest's kernel announced the disk. */
  announced: string | undefined;
  device: string | undefined;
  formatted: boolean;
}

/** The part of an attach that waits: no lock is held. */
async function settleInGuest(
  host: VolumeHost,
  volume: Volume,
  key: KeyMaterial | undefined,
  deadline: Deadline,
  watch: Stopwatch,
): Promise<GuestView> {
  const seen: InGuest = {
    ...{ host, volume, key, deadline, watch, sinceMs: monotonicMs(), evidence: [] },
    ...{ address: undefined, announced: undefined, device: undefined, formatted: false },
  };
  for (const step of guestSteps(volume.spec, volume.id)) await IN_GUEST[step.kind](seen, step as never);
  const { address, device, evidence, formatted } = seen;
  return { pciAddress: address && formatAddress(address), device, evidence, formatted };
}

/** How each step in the guest is carried out. */
const IN_GUEST: {
  readonly [K in GuestStep['kind']]: (seen: InGuest, step: Extract<GuestStep, { kind: K }>) => Promise<void>;
} = {
  'await-driver': awaitDriver,
  'find-in-guest': findDisk,
  'open-in-guest': openEncryption,
  mount: mountDisk,
};

async function awaitDriver(seen: InGuest): Promise<void> {
  const { host, volume, deadline, watch, evidence } = seen;
  const qmp = await host.link.ready();
  // An attach that an earlier daemon began has none yet.
  await expectDisk(host, volume, qmp, true);
  const { arrival } = volume;
  const news = arrival?.certain === true ? arrival.announced : undefined;
  evidence.push(await host.drivers.untilLive(volume, deadline, news));
  seen.announced = news === undefined ? undefined : await announcedSoon(host, news);
  if (seen.announced !== undefined) evidence.push('guest-uevent');
  else if (arrival?.certain === true) host.guestEvents.missed(arrival);
  watch.lap('driver');
}

/** A script that opens or mounts the disk finds it by itself, by the same address. */
async function findDisk(seen: InGuest): Promise<void> {
  const { host, volume, sinceMs, deadline, watch, evidence } = seen;
  seen.address = await host.addresses.of(await host.link.ready(), volume.identity.slot);
  if (volume.spec.mount !== undefined || guestEncryption(volume) !== undefined) return;
  if (seen.announced !== undefined) {
    seen.device = seen.announced;
    return;
  }
  await host.drivers.untilCalm();
  seen.device = await findInGuest(host, volume, { address: seen.address, sinceMs }, deadline);
  if (seen.device !== undefined) evidence.push('guest-agent');
  watch.lap('find-in-guest');
}

async function openEncryption(seen: InGuest): Promise<void> {
  const { host, volume, key, deadline, watch, evidence } = seen;
  const pci = addressOf(seen);
  const encryption = guestEncryption(volume);
  if (encryption === undefined) throw new Error('opened in the guest, and not encrypted there');
  const opened = await onceListed(host, deadline, () => openInGuest(host, volume, encryption, pci, key));
  watch.lap('luks-open');
  evidence.push('guest-agent', 'guest-luks');
  if (opened.mount !== undefined) evidence.push('guest-mount');
  seen.device = opened.disk;
  seen.formatted = opened.mount?.formatted ?? false;
}

async function mountDisk(seen: InGuest, { mount }: Extract<GuestStep, { kind: 'mount' }>): Promise<void> {
  const { host, volume, deadline, watch, evidence } = seen;
  const pci = addressOf(seen);
  const { serial, readOnly } = volume.spec;
  const proof = { seen: volume.look.emptiness, readBytesMax: host.config.empty_scan_bytes_max };
  host.volumes.apply(volume, { kind: 'mounted', mount: true });
  const request = { ...mount, pci, serial, readOnly, proof, timeoutMs: host.config.mount_timeout_ms };
  const mounted = await onceListed(host, deadline, () => prepareMount(host.agent, request));
  watch.lap('mount');
  if (mounted.checked !== undefined)
    host.log.info({ volumeId: volume.id, found: mounted.checked }, 'fsck before mount');
  evidence.push('guest-agent', 'guest-mount');
  seen.device = mounted.device;
  seen.formatted = mounted.formatted;
}

function addressOf({ address, volume }: InGuest): GuestPciAddress {
  if (address !== undefined) return address;
  throw new ShimError('FAILED_PRECONDITION', `the guest has given volume ${volume.id} no PCI address`, {
    reason: 'GUEST_DISK_NOT_FOUND',
    metadata: { volumeId: volume.id },
  });
}

/** The name that the guest's kernel has given the disk; undefined when it does not come in time. */
async function announcedSoon(host: VolumeHost, news: Promise<string | undefined>): Promise<string | undefined> {
  const { gone: signal } = host;
  return await waitFor(news, { milliseconds: ANNOUNCED_MAX_MS, signal }).catch(() => {
    signal.throwIfAborted();
    return undefined;
  });
}

/** Linux sets DRIVER_OK a moment before it lists the disk: until then the guest says that there is none. */
async function onceListed<T>(host: VolumeHost, attachDeadline: Deadline, act: () => Promise<T>): Promise<T> {
  const deadline = Deadline.after(Math.min(LISTED_MAX_MS, attachDeadline.remainingMs));
  const backoff = new Backoff(FIND_PAUSE_MIN_MS, FIND_PAUSE_MAX_MS);
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (!isShimError(error) || error.reason !== 'GUEST_DISK_NOT_FOUND' || deadline.expired) throw error;
    }
    await backoff.pause(host.gone, deadline);
  }
}

/**
 * The guest's own name for the disk, when an agent is there to tell it. The driver is known to be live already, so an
 * agent that does not answer, or lists nothing, is no reason to fail: the name is left out.
 */
async function findInGuest(
  host: VolumeHost,
  volume: Volume,
  { address, sinceMs }: { readonly address: GuestPciAddress | undefined; readonly sinceMs: number },
  attachDeadline: Deadline,
): Promise<string | undefined> {
  if (!host.agentReady || address === undefined) return undefined;
  const deadline = Deadline.after(Math.min(FIND_IN_GUEST_MS, attachDeadline.remainingMs));
  const backoff = new Backoff(FIND_PAUSE_MIN_MS, FIND_PAUSE_MAX_MS);
  while (!deadline.expired) {
    try {
      const taken = host.volumes.guestDevices(volume);
      const device = await host.disks.find({ pci: address, serial: volume.spec.serial, taken, sinceMs });
      if (device !== undefined) return device;
    } catch (error) {
      host.gone.throwIfAborted();
      host.log.warn({ volumeId: volume.id, problem: messageOf(error) }, 'guest agent could not name the disk');
      return undefined;
    }
    await backoff.pause(host.gone, deadline);
  }
  return undefined;
}

async function undoAttach(host: VolumeHost, volume: Volume, error: ShimError, timeoutMs: number): Promise<void> {
  // The VM's own end removes the volume with everything that QEMU held; a daemon that only leaves the VM lets the next
  // daemon finish what the journal says was begun.
  if (host.gone.aborted) return;
  const { removal } = await beginUndo(host, volume, causeFrom(error));
  await waitFor(removal, { milliseconds: timeoutMs, signal: host.gone }).catch((problem: unknown) => {
    if (!isShimError(problem, 'DEADLINE_EXCEEDED')) return; // The VM has gone, and the volume with it.
    host.log.warn({ volumeId: volume.id }, 'the undo of a failed attach takes long and goes on');
  });
}

/**
 * Undoes an attach, whichever daemon began it: PENDING (undoing), what is left of it in the guest, and the way out of
 * QEMU, whose end is the removal. It is wrapped, so that this does not wait for it.
 */
export async function beginUndo(
  host: VolumeHost,
  volume: Volume,
  cause: Cause,
): Promise<{ readonly removal: Promise<void> }> {
  {
    using _held = await volume.mutex.acquire();
    host.volumes.apply(volume, { kind: 'attach-failed', cause });
    host.commitSoon();
  }
  await releaseBestEffort(host, volume);
  return { removal: volume.removeBy(removeFromQemu(host, volume)) };
}

/**
 * What failed half-way in the guest may have mounted, or made a mapping; what is left of it must not survive the disk.
 */
async function releaseBestEffort(host: VolumeHost, volume: Volume): Promise<void> {
  if (!volume.made.mount && !volume.made.mapping) return;
  try {
    const pci = await host.addresses.of(await host.link.ready(), volume.identity.slot);
    if (pci === undefined) return;
    const left = await unmountAndClose(host, volume, pci, { force: false, timeoutMs: UNDO_UNMOUNT_MS });
    if (left !== undefined) host.log.warn({ volumeId: volume.id }, 'guest has not let go in an undo');
  } catch (error) {
    host.log.warn({ volumeId: volume.id, problem: messageOf(error) }, 'unmount in an undo failed');
  }
}

/** The refusal of an attach whose device has gone meanwhile, although the driver was seen. */
function vanished(volume: Volume): ShimError {
  return new ShimError(
    'FAILED_PRECONDITION',
    `the device of volume ${volume.id} vanished while it was being attached`,
    {
      reason: 'DEVICE_VANISHED',
      metadata: { volumeId: volume.id },
    },
  );
}
