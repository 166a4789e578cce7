import { Coalesced } from '../base/coalesce.ts';
import { monotonicMs, sleep } from '../base/deadline.ts';
import { isShimError, messageOf } from '../base/errors.ts';
import { luksRemovalSteps, removalSteps, type RemovalStep } from '../device/plan.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { QmpListener } from '../qmp/listener.ts';
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
  let pauseMs = host.config.unplug_retry_ms;
  for (let attempt = 1; ; attempt += 1) {
    host.gone.throwIfAborted();
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
    pauseMs = Math.min(pauseMs * 2, host.config.unplug_retry_max_ms);
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
  // The listener is open before the command is sent. QEMU emits the event twice for virtio-blk-pci: the back end's copy
  // has no `device`. Wait for ours.
  using deleted = qmp.listen('DEVICE_DELETED', (event) => event.data.device === device);
  let asked: boolean;
  {
    using _held = await volume.mutex.acquire();
    if (volume.isRemoved()) return true;
    asked = !isKnownGone(volume) && (await askUnplug(qmp, volume));
  }
  // Locking rule 4: the mutex is free while the guest thinks. DETACHING (or the undo) is itself the lock.
  if (asked && !(await deletedWithin(deleted, patienceMs, host.gone)) && (await hasDevice(qmp, device))) return false;
  using _held = await volume.mutex.acquire();
  host.gone.throwIfAborted();
  // The volume may have been carried to its end meanwhile: by the VM's own end.
  if (volume.isRemoved()) return true;
  host.volumes.apply(volume, { kind: 'device-gone' });
  if (!(await removeNodesAndProve(qmp, volume))) return false;
  watch.lap('unplug');
  volume.timings = watch.timings;
  host.volumes.apply(volume, { kind: 'all-gone' });
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

async function deletedWithin(
  deleted: QmpListener<'DEVICE_DELETED'>,
  milliseconds: number,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    await deleted.next({ timeoutMs: milliseconds, signal });
    return true;
  } catch (error) {
    signal.throwIfAborted();
    if (isShimError(error, 'DEADLINE_EXCEEDED')) return false;
    throw error;
  }
}

/** True when QEMU has a device of this id, by its own list. */
export async function hasDevice(qmp: QmpClient, device: string): Promise<boolean> {
  const children = await qmp.run('qom-list', { path: PERIPHERALS });
  return children.some((child) => child.name === device);
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

/** One look for many removals at a time: the lists are long when there are many volumes. */
const looks = new WeakMap<QmpClient, Coalesced<ReadonlySet<string>>>();

/** What QEMU lists: devices with an id, and block nodes. */
function lookOver(qmp: QmpClient): Coalesced<ReadonlySet<string>> {
  const known = looks.get(qmp) ?? new Coalesced(() => listNames(qmp));
  looks.set(qmp, known);
  return known;
}

async function listNames(qmp: QmpClient): Promise<ReadonlySet<string>> {
  const [nodes, children] = await Promise.all([
    qmp.run('query-named-block-nodes', { flat: true }),
    qmp.run('qom-list', { path: PERIPHERALS }),
  ]);
  return new Set([...nodes.map((node) => node['node-name'] ?? ''), ...children.map((child) => child.name)]);
}
