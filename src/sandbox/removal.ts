import { Backoff } from '../base/backoff.ts';
import { Coalesced } from '../base/coalesce.ts';
import { Deadline, monotonicMs, sleep } from '../base/deadline.ts';
import { isShimError, messageOf } from '../base/errors.ts';
import { luksRemovalSteps, removalSteps, type RemovalStep } from '../device/plan.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { QmpListener } from '../qmp/listener.ts';
import { undoCreation } from './image-undo.ts';
import { Stopwatch } from './stopwatch.ts';
import type { Volume } from './volume.ts';
import type { VolumeHost } from './vm.ts';

/** qdev devices that have an id are children of this QOM object. */
export const PERIPHERALS = '/machine/peripheral';

/**
 * Drives a volume out of QEMU, whatever of it is there, to a proven end: front end, block nodes, and the look that finds
 * none of them. It serves Detach, the undo of a failed attach, and adoption alike, because it begins by looking, not by
 * remembering. It asks again for as long as the VM lives, and returns once the volume is REMOVED.
 * @param watch takes the time of the removal; its phases become the volume's timings
 * @throws the reason of `host.gone` when the VM goes first; the VM's end then removes the volume
 */
export async function removeFromQemu(host: VolumeHost, volume: Volume, watch = new Stopwatch()): Promise<void> {
  const log = host.log.child({ volumeId: volume.id, generation: volume.generation });
  const startedMs = monotonicMs();
  const backoff = new Backoff(host.config.unplug_retry_ms, host.config.unplug_retry_max_ms);
  for (let attempt = 1; ; attempt += 1) {
    host.gone.throwIfAborted();
    const pauseMs = backoff.next();
    try {
      const qmp = await host.link.ready();
      if (await removeOnce(host, volume, qmp, pauseMs, watch)) {
        log.debug({ attempt, milliseconds: monotonicMs() - startedMs }, 'volume removed from qemu');
        return;
      }
      log.info({ attempt, device: volume.names.device }, 'guest has not let go yet, asking again');
    } catch (error) {
      host.gone.throwIfAborted();
      log.warn({ attempt, problem: messageOf(error) }, 'removal failed, trying again');
      await sleep(pauseMs, host.gone);
    }
  }
}

async function removeOnce(
  host: VolumeHost,
  volume: Volume,
  qmp: QmpClient,
  patienceMs: number,
  watch: Stopwatch,
): Promise<boolean> {
  const { device } = volume.names;
  // The listener is open before the command is sent.
  using deleted = qmp.listen('DEVICE_DELETED', ({ data }) => data.device === device || isPartOf(data.path, device));
  let asked: boolean;
  {
    using _held = await volume.mutex.acquire();
    if (volume.isRemoved()) return true;
    asked = !isKnownGone(volume) && (await askUnplug(qmp, volume));
  }
  // Locking rule 4: the mutex is free while the guest thinks. DETACHING (or the undo) is itself the lock.
  if (asked && !(await goneWithin(host, qmp, deleted, device, patienceMs)) && (await hasDevice(qmp, device)))
    return false;
  using _held = await volume.mutex.acquire();
  host.gone.throwIfAborted();
  // The volume may have been carried to its end meanwhile: by the VM's own end.
  if (volume.isRemoved()) return true;
  host.volumes.apply(volume, { kind: 'device-gone' });
  if (!(await removeNodesAndProve(qmp, volume))) return false;
  await undoCreation(volume, { scanBytesMax: host.config.empty_scan_bytes_max, log: host.log });
  watch.lap('unplug');
  volume.timings = watch.timings;
  host.volumes.apply(volume, { kind: 'all-gone' });
  volume.arrival?.end();
  host.commitSoon();
  return true;
}

function isKnownGone(volume: Volume): boolean {
  return volume.state.state === 'detaching' && volume.state.deviceGone;
}

/** Sends device_del. An acknowledgement is not an outcome; false only when QEMU has no such device. */
async function askUnplug(qmp: QmpClient, volume: Volume): Promise<boolean> {
  const [unplug] = removalSteps(volume.names);
  try {
    await qmp.run(unplug.command, unplug.arguments);
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
 * Waits until the device is seen to be gone: by its own DEVICE_DELETED, or by QEMU's list. False when neither was seen in time.
 *
 * A virtio-blk-pci sends the event twice. The first comes from its back end, without a `device`, as soon as the guest has let
 * go: from then on QEMU lists the device no more, and has closed what it had open. The device's own comes when its memory is
 * freed, up to 50 ms later (QEMU lets RCU callbacks pile up). So the first is a reason to look, and nothing more.
 */
async function goneWithin(
  host: VolumeHost,
  qmp: QmpClient,
  deleted: QmpListener<'DEVICE_DELETED'>,
  device: string,
  milliseconds: number,
): Promise<boolean> {
  const deadline = Deadline.after(milliseconds);
  try {
    for (;;) {
      const { data } = await deleted.next({ timeoutMs: deadline.remainingMs, signal: host.gone });
      if (data.device === device || !(await peripherals(qmp).run()).has(device)) return true;
    }
  } catch (error) {
    host.gone.throwIfAborted();
    if (isShimError(error, 'DEADLINE_EXCEEDED')) return false;
    throw error;
  }
}

/** True when QEMU has a device of this id, by its own list. */
export async function hasDevice(qmp: QmpClient, device: string): Promise<boolean> {
  return (await listPeripherals(qmp)).has(device);
}

/** Removes the block nodes and looks: true only when neither the device nor a node is listed any more. */
async function removeNodesAndProve(qmp: QmpClient, volume: Volume): Promise<boolean> {
  const { device, formatNode, fileNode } = volume.names;
  const [, removeNode] = removalSteps(volume.names);
  // That the node may be gone already is not an error: the look decides. QEMU works in order, so a look that is sent after
  // the command sees what became of it.
  const removed = qmp.run(removeNode.command, removeNode.arguments).catch((error: unknown) => {
    if (!isQmpError(error)) throw error;
  });
  const [left] = await Promise.all([lookOver(qmp).run(), removed]);
  if ([device, formatNode].some((name) => left.has(name))) return false;
  return volume.spec.encryption?.kind === 'host-luks' ? await removeLuksRestAndProve(qmp, volume) : !left.has(fileNode);
}

/** The protocol node, the secrets and the job of a host_luks volume: taken away as far as they are there, and looked for. */
async function removeLuksRestAndProve(qmp: QmpClient, volume: Volume): Promise<boolean> {
  for (const step of luksRemovalSteps(volume.names)) {
    await runRemoval(qmp, step).catch((error: unknown) => {
      if (!isQmpError(error)) throw error;
    });
  }
  const { fileNode, keySecret, masterSecret, job } = volume.names;
  const [left, objects, jobs] = await Promise.all([
    lookOver(qmp).run(),
    qmp.run('qom-list', { path: '/objects' }),
    qmp.run('query-jobs'),
  ]);
  const secrets = objects.some(({ name }) => name === keySecret || name === masterSecret);
  return !left.has(fileNode) && !secrets && !jobs.some(({ id }) => id === job);
}

async function runRemoval(qmp: QmpClient, step: RemovalStep): Promise<void> {
  switch (step.command) {
    case 'device_del':
    case 'object-del':
    case 'job-dismiss':
      await qmp.run(step.command, step.arguments);
      return;
    case 'blockdev-del':
      await qmp.run(step.command, step.arguments);
  }
}

type Look = Coalesced<ReadonlySet<string>>;

/** One look for many removals at a time: the lists are long when there are many volumes. */
const looks = { all: new WeakMap<QmpClient, Look>(), peripherals: new WeakMap<QmpClient, Look>() };

/** What QEMU lists: devices with an id, and block nodes. */
function lookOver(qmp: QmpClient): Look {
  return coalesced(looks.all, qmp, async () => {
    const [nodes, devices] = await Promise.all([
      qmp.run('query-named-block-nodes', { flat: true }),
      listPeripherals(qmp),
    ]);
    return new Set([...nodes.map((node) => node['node-name'] ?? ''), ...devices]);
  });
}

/** Devices with an id only. */
function peripherals(qmp: QmpClient): Look {
  return coalesced(looks.peripherals, qmp, () => listPeripherals(qmp));
}

function coalesced(known: WeakMap<QmpClient, Look>, qmp: QmpClient, act: () => Promise<ReadonlySet<string>>): Look {
  const look = known.get(qmp) ?? new Coalesced(act);
  known.set(qmp, look);
  return look;
}

async function listPeripherals(qmp: QmpClient): Promise<ReadonlySet<string>> {
  const children = await qmp.run('qom-list', { path: PERIPHERALS });
  return new Set(children.map(({ name }) => name));
}
