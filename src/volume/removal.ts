import { Backoff } from '../base/backoff.ts';
import { monotonicMs } from '../base/deadline.ts';
import { isShimError, messageOf } from '../base/errors.ts';
import { Stopwatch } from '../base/stopwatch.ts';
import { PERIPHERALS } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { QmpListener } from '../qmp/listener.ts';
import type { VolumeHost } from './host.ts';
import { leftByQemu, undoCreation } from './image-undo.ts';
import { deviceOf, type DeviceObject, type QemuObject } from './model/objects.ts';
import { isSwitching } from './model/operation.ts';
import type { Asked } from './model/slots.ts';
import { endMirrors } from './mirror/end.ts';
import { unmakeMedium } from './mirror/media.ts';
import type { Unplug } from './unplugs.ts';
import type { Volume } from './volume.ts';

/**
 * The way out of QEMU, the same for Detach, undo and adoption:
 *
 *     turn ─▶ listen ─▶ device_del ─▶ DEVICE_DELETED, or a look ─▶ the rest, last one first ─▶ look (qemu/inventory.ts)
 *               ▲                                                                                   │
 *               └── something is listed: ask again, if nothing moves in the VM (unplugs.ts) ◀───────┤
 *                                                               nothing is: all-gone, REMOVED ◀─────┘
 */

/**
 * Drives a volume out of QEMU, whatever of it is there, to a proven end: its objects, the last one first, and the look
 * that finds none of them. It serves Detach, the undo of a failed attach, and adoption alike, because it begins by
 * looking, not by remembering. It asks again for as long as the VM lives, and returns once the volume is REMOVED.
 * @param watch takes the time of the removal; its phases become the volume's timings
 * @throws the reason of `host.gone` when the VM goes first; the VM's end then removes the volume
 */
export async function removeFromQemu(host: VolumeHost, volume: Volume, watch = new Stopwatch()): Promise<void> {
  const log = host.log.child({ volumeId: volume.id, generation: volume.generation });
  const startedMs = monotonicMs();
  const backoff = new Backoff(host.config.unplug_retry_ms, host.config.unplug_retry_max_ms);
  using unplug = host.unplugs.begin();
  const settles = settledBy(host, volume);
  const image = { left: undefined };
  for (let attempt = 1; ; attempt += 1) {
    host.gone.throwIfAborted();
    try {
      if (!isKnownGone(volume)) await unplug.turn();
      const qmp = await host.link.ready();
      if (await removeOnce({ host, volume, qmp, unplug, settles, image, watch })) {
        log.debug({ attempt, milliseconds: monotonicMs() - startedMs }, 'volume removed from qemu');
        return;
      }
      log.info({ attempt, device: volume.names.device }, 'guest has not let go yet');
      if (isKnownGone(volume)) await backoff.pause(host.gone);
    } catch (error) {
      host.gone.throwIfAborted();
      log.warn({ attempt, problem: messageOf(error) }, 'removal failed, trying again');
      await backoff.pause(host.gone);
    }
  }
}

/**
 * What this volume's going says of slots that were free when the guest was first asked for it (SlotBook). From a slot
 * that was not settled it says nothing: an earlier request for that slot may have taken the device.
 */
function settledBy({ volumes }: VolumeHost, volume: Volume): { asking(): void; gone(): void } {
  let asked: Asked | undefined;
  return {
    asking: () => {
      if (volumes.isSettled(volume.identity.slot)) asked = volumes.asking();
    },
    gone: () => {
      if (asked !== undefined) volumes.passed(asked);
    },
  };
}

interface Removing {
  readonly host: VolumeHost;
  readonly volume: Volume;
  readonly qmp: QmpClient;
  readonly unplug: Unplug;
  readonly settles: ReturnType<typeof settledBy>;
  /** What QEMU had left of an unfinished image when it still had the device open (image-undo.ts). */
  readonly image: { left: string | undefined };
  readonly watch: Stopwatch;
}

async function removeOnce(removing: Removing): Promise<boolean> {
  const { host, volume, qmp, unplug, settles, image, watch } = removing;
  await endMirrors(host, volume, qmp);
  const objects = volume.everyObject();
  const device = deviceOf(objects);
  const { id } = device;
  // The listener is open before the command is sent.
  using deleted = qmp.listen('DEVICE_DELETED', ({ data }) => data.device === id || isPartOf(data.path, id));
  let there: boolean;
  {
    using _held = await volume.mutex.acquire();
    if (volume.isRemoved()) return true;
    there = !isKnownGone(volume) && (await askIfDue(removing, device));
  }
  // Locking rule 4: the mutex is free while the guest thinks. DETACHING (or the undo) is itself the lock.
  if (there) {
    if (!(await goneUntilDue(host, deleted, id, unplug)) && (await hasDevice(host, id))) return false;
    settles.gone();
  }
  unplug.gone();
  using _held = await volume.mutex.acquire();
  host.gone.throwIfAborted();
  // The volume may have been carried to its end meanwhile: by the VM's own end.
  if (volume.isRemoved()) return true;
  host.volumes.apply(volume, { kind: 'device-gone' });
  image.left = (await leftByQemu(qmp, volume, host.config)) ?? image.left;
  if (!(await removeRestAndProve(host, volume, qmp, objects))) return false;
  for (const relay of volume.relays) await host.relays.end(relay);
  await emptyAgain(host, volume, image.left);
  watch.lap('unplug');
  host.volumes.apply(volume, { kind: 'timed', timings: watch.timings });
  host.volumes.apply(volume, { kind: 'all-gone' });
  volume.arrival?.end();
  host.commitSoon();
  return true;
}

/**
 * An image that was begun and not finished is made empty again, while the claim on the source is held, and a file that
 * was made for another medium is removed.
 * @param left as undoCreation takes it
 */
export async function emptyAgain(
  { volumes, config, log }: Pick<VolumeHost, 'volumes' | 'config' | 'log'>,
  volume: Volume,
  left?: string,
): Promise<void> {
  // One that may be what the device was on last is kept.
  if (!isSwitching(volume.operation)) {
    for (const medium of volume.otherMedia) await unmakeMedium({ config, log }, volume, medium);
  }
  if (volume.creating === undefined) return;
  await undoCreation(volume, { limits: config, scanBytesMax: config.empty_scan_bytes_max, left, log });
  volumes.apply(volume, { kind: 'creating', creating: undefined });
}

function isKnownGone(volume: Volume): boolean {
  return volume.state.state === 'detaching' && volume.state.deviceGone;
}

/** Asks the guest for the device, unless it was asked and is not to be asked again yet. False when it is gone. */
async function askIfDue({ host, qmp, unplug, settles }: Removing, device: DeviceObject): Promise<boolean> {
  if (unplug.untilDueMs > 0) return await hasDevice(host, device.id);
  if (unplug.unasked) settles.asking();
  unplug.asking();
  return await askUnplug(qmp, device);
}

/** Sends device_del. An acknowledgement is not an outcome; false only when QEMU has no such device. */
export async function askUnplug(qmp: QmpClient, { remove }: Pick<DeviceObject, 'remove'>): Promise<boolean> {
  try {
    await qmp.run(remove.command, remove.arguments);
    return true;
  } catch (error) {
    if (isQmpError(error, 'DeviceNotFound')) return false;
    // Native hotplug refuses a repeat ("already in the process of unplug"): the earlier request still stands.
    if (isQmpError(error)) return true;
    throw error;
  }
}

/** Whether a QOM path is that of a part of the device, such as its virtio back end. */
function isPartOf(path: string, device: string): boolean {
  return path.startsWith(`${PERIPHERALS}/${device}/`);
}

/**
 * Waits until the device is seen to be gone: by its own DEVICE_DELETED, or by QEMU's list. False when neither was seen
 * until the guest may be asked again.
 *
 * A virtio-blk-pci sends the event twice. The first comes from its back end, without a `device`, as soon as the guest
 * has let go: from then on QEMU lists the device no more, and has closed what it had open. The device's own comes when
 * its memory is freed, up to 50 ms later (QEMU lets RCU callbacks pile up). So the first is a reason to look, and
 * nothing more.
 */
export async function goneUntilDue(
  host: Pick<VolumeHost, 'inventory' | 'gone'>,
  deleted: QmpListener<'DEVICE_DELETED'>,
  device: string,
  unplug: Unplug,
): Promise<boolean> {
  // What moves meanwhile puts it off.
  for (let timeoutMs = unplug.untilDueMs; timeoutMs > 0; timeoutMs = unplug.untilDueMs) {
    try {
      const { data } = await deleted.next({ timeoutMs, signal: host.gone });
      if (data.device === device || !(await hasDevice(host, device))) return true;
    } catch (error) {
      host.gone.throwIfAborted();
      if (!isShimError(error, 'DEADLINE_EXCEEDED')) throw error;
    }
  }
  return false;
}

/** True when QEMU has a device of this id, by its own list. */
export async function hasDevice({ inventory }: Pick<VolumeHost, 'inventory'>, device: string): Promise<boolean> {
  return (await inventory.names('device')).has(device);
}

/**
 * Removes all but the front end, and looks: true only when QEMU lists none of the objects, nor a part of one, any more.
 * What is left is noted with QEMU's word for it: a job or an export may use a node.
 */
async function removeRestAndProve(
  host: VolumeHost,
  volume: Volume,
  qmp: QmpClient,
  objects: readonly QemuObject[],
): Promise<boolean> {
  const rest = objects.filter(({ type }) => type !== 'device').reverse();
  // That something may be gone already, or be in use still, is not an error: the look decides. QEMU works in order, so
  // a look that is sent after the commands sees what became of them.
  const said = new Map<QemuObject, string>();
  const removals = rest.map((object) =>
    qmp.run(object.remove.command, object.remove.arguments).catch((error: unknown) => {
      if (!isQmpError(error)) throw error;
      said.set(object, error.message);
    }),
  );
  const [left] = await Promise.all([host.inventory.namesOn(objects.map(({ type }) => type)), ...removals]);
  const isLeft = ({ gone }: QemuObject): boolean => gone.some((name) => left.has(name));
  const [by] = [...said].filter(([object]) => isLeft(object)).map(([, message]) => message);
  if (by !== volume.heldBy) host.volumes.apply(volume, { kind: 'held', by });
  return !objects.some(isLeft);
}
