import { waitFor, type WaitLimits } from '../../base/deadline.ts';
import { invalidArgument, ShimError } from '../../base/errors.ts';
import type { ReasonWith } from '../../base/reasons.ts';
import { resizeDisk, type DiskIdentity } from '../../guest/disks.ts';
import { resizeLuks2, type LuksKey } from '../../guest/luks.ts';
import type { KeyMaterial } from '../../keys/material.ts';
import type { QmpClient } from '../../qmp/client.ts';
import { isQmpError } from '../../qmp/errors.ts';
import { guestEncryption } from '../guest-crypt.ts';
import type { VolumeHost } from '../host.ts';
import { fetchKey } from '../key.ts';
import { mappingName, type GuestLuks2Spec } from '../model/encryption.ts';
import { lookAtSource } from '../looks.ts';
import { moduleOf } from '../source/registry.ts';
import { intendedUse } from '../spec.ts';
import { noteGone } from '../still-there.ts';
import type { Volume, VolumeSnapshot } from '../volume.ts';
import { joinOrOperate } from './slot.ts';

/** An agent that has not answered in this boot of the guest yet is given so long. */
const AGENT_ANSWER_MS = 5000;

/**
 * Grows an attached volume, from the bottom up: image, disk, encryption, file system. Each is looked at afterwards, and
 * a repeat with the same size goes on where the last one stopped. A device that has more than was asked for is taken
 * whole: the snapshot tells what was seen. Nothing ever cuts a source.
 * @param options.sizeBytes undefined: what the source has now
 * @throws ShimError INVALID_ARGUMENT; FAILED_PRECONDITION: VOLUME_NOT_ATTACHED, VOLUME_READ_ONLY, SHRINK_REFUSED,
 *   OPERATION_IN_PROGRESS, RESIZE_FAILED, GUEST_SIZE_NOT_SEEN, GUEST_RESIZE_FAILED, VOLUME_NOT_MOUNTED, LUKS_NOT_OPEN,
 *   LUKS_WRONG_KEY; UNAVAILABLE / GUEST_AGENT_LOST; UNIMPLEMENTED / LUKS_RESIZE_UNSUPPORTED
 */
export async function resizeVolume(
  host: VolumeHost,
  volume: Volume,
  options: { readonly sizeBytes: number | undefined; readonly timeoutMs: number; readonly callerWait: AbortSignal },
): Promise<VolumeSnapshot> {
  const { callerWait } = options;
  const timeoutMs = options.timeoutMs === 0 ? host.config.mount_timeout_ms : options.timeoutMs;
  const sizeBytes = options.sizeBytes ?? (await offered(host, volume));
  refuse(volume, sizeBytes);
  const wait = { milliseconds: timeoutMs, signal: callerWait };
  const asked = { sizeBytes, timeoutMs };
  const work = joinOrOperate(
    host,
    volume,
    { kind: 'resize', ...asked },
    {
      work: () => grow(host, volume, sizeBytes, timeoutMs, wait),
      again: () => growAgain(host, volume, asked),
    },
  );
  work.catch(() => undefined); // The caller may go; what was begun is finished.
  await waitFor(work, { signal: callerWait });
  return volume.snapshot();
}

/**
 * For a resize whose outcome was not seen, or that an earlier daemon began. What QEMU has done of it is seen first; a
 * guest that has to do its part is waited for, for as long as a boot may take.
 * @throws as resizeVolume; DEADLINE_EXCEEDED / GUEST_AGENT_TIMEOUT
 */
export async function growAgain(
  host: VolumeHost,
  volume: Volume,
  { sizeBytes, timeoutMs }: { readonly sizeBytes: number; readonly timeoutMs: number },
): Promise<void> {
  await lookAtSize(host, volume, sizeBytes);
  if (needsGuest(volume)) await awaitAgent(host, host.config.boot_timeout_ms);
  await grow(host, volume, sizeBytes, timeoutMs, { milliseconds: timeoutMs });
}

/** Nobody else may ask it: of a sandbox that counts as ready without its agent, qshim does not. */
async function awaitAgent(host: VolumeHost, timeoutMs: number): Promise<void> {
  let boot: number;
  do {
    ({ boot } = host);
    await host.agent.waitReady({ timeoutMs, signal: host.gone });
    // A reset came meanwhile: it was the last boot's.
  } while (host.boot !== boot);
  host.agentAnswered();
}

/** What the volume has now, as QEMU shows it. */
async function lookAtSize(host: VolumeHost, volume: Volume, askedBytes: number): Promise<void> {
  using _held = await volume.mutex.acquire();
  const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
  noteSize(host, volume, await virtualSize(qmp, volume.names.root), askedBytes);
}

function noteSize(host: VolumeHost, volume: Volume, seen: number | undefined, askedBytes: number): void {
  if (seen !== undefined) host.volumes.apply(volume, { kind: 'sized', sizeBytes: seen, askedBytes });
  host.commitSoon();
}

/** @param wait for the volume's turn */
async function grow(
  host: VolumeHost,
  volume: Volume,
  sizeBytes: number,
  timeoutMs: number,
  wait: WaitLimits,
): Promise<void> {
  // Before anything is changed: a guest that cannot be asked, or a key that is not to be had, leaves it as it is.
  if (needsGuest(volume) && host.runState === 'paused') {
    throw guestSilent(volume, 'the VM is paused, and nothing was changed; resume it, and resize again');
  }
  if (needsGuest(volume) && !host.agentReady) {
    await awaitAgent(host, AGENT_ANSWER_MS).catch((error: unknown) => {
      host.gone.throwIfAborted();
      throw guestSilent(volume, 'nothing was changed', error);
    });
  }
  using key = guestEncryption(volume) === undefined ? undefined : await fetchKey(host, volume.spec);
  const seenBytes = await growDisk(host, volume, sizeBytes, wait);
  try {
    await growInGuest(host, volume, key, seenBytes, timeoutMs);
  } catch (error) {
    await noteGone(host, volume, error);
    throw error;
  }
}

/** What lies on the disk. A file system that qshim mounted is grown, or the resize fails. */
async function growInGuest(
  host: VolumeHost,
  volume: Volume,
  key: KeyMaterial | undefined,
  seenBytes: number,
  timeoutMs: number,
): Promise<void> {
  // The mutex is free while the guest works; its scripts wait for each other.
  const pci = await host.addresses.of(await host.link.ready(), volume.identity.slot);
  if (pci === undefined || !host.agentReady) {
    if (!needsGuest(volume)) return;
    throw guestSilent(volume, 'the disk has grown');
  }
  const encryption = guestEncryption(volume);
  if (encryption === undefined) {
    const { serial, mount } = volume.spec;
    const mountPoint = mountsWholeDisk(volume) ? mount?.mountPoint : undefined;
    await resizeDisk(host.agent, { pci, serial, sizeBytes: seenBytes, mountPoint, timeoutMs });
    return;
  }
  const open = (luksKey: LuksKey): Promise<void> => growMapping(host, volume, pci, luksKey, seenBytes, timeoutMs);
  await (key === undefined ? open({ kind: 'ephemeral' }) : key.use((material) => open({ kind: 'provided', material })));
}

function needsGuest(volume: Volume): boolean {
  return mountsWholeDisk(volume) || guestEncryption(volume) !== undefined;
}

function guestSilent({ id }: Volume, so: string, cause?: unknown): ShimError {
  return new ShimError('UNAVAILABLE', `the guest of volume ${id} cannot be asked: ${so}`, {
    reason: 'GUEST_AGENT_LOST',
    metadata: { volumeId: id },
    cause,
  });
}

/** A partition keeps its size when its disk grows. */
function mountsWholeDisk({ spec: { mount } }: Volume): boolean {
  return mount !== undefined && mount.partition === undefined;
}

function refuse(volume: Volume, sizeBytes: number): void {
  const { spec } = volume;
  if (sizeBytes === 0 || sizeBytes % spec.logicalBlockSize !== 0 || !Number.isSafeInteger(sizeBytes)) {
    throw invalidArgument('size_bytes', sizeBytes, `must be a multiple of ${spec.logicalBlockSize}, and not 0`);
  }
  refuseState(volume);
  // A repeat of what a device has answered with more is no wish to shrink it.
  if (sizeBytes < volume.sizeBytes && sizeBytes !== volume.askedBytes) {
    throw shrinkRefused(volume, `has ${volume.sizeBytes} bytes; it may only grow, not to ${sizeBytes}`);
  }
}

function refuseState(volume: Volume): void {
  const { spec, state } = volume;
  if (state.state !== 'attached') {
    throw precondition(volume, 'VOLUME_NOT_ATTACHED', `is ${state.state}, not attached`);
  }
  if (spec.readOnly) throw precondition(volume, 'VOLUME_READ_ONLY', 'is read-only');
  if (volume.encryption?.integrity === true || integrityAsked(spec.encryption)) {
    throw new ShimError('UNIMPLEMENTED', `volume ${volume.id} is protected by dm-integrity, which cannot be resized`, {
      reason: 'LUKS_RESIZE_UNSUPPORTED',
      metadata: { volumeId: volume.id },
    });
  }
}

function precondition({ id }: Volume, reason: ReasonWith<'FAILED_PRECONDITION'>, problem: string): ShimError {
  return new ShimError('FAILED_PRECONDITION', `volume ${id} ${problem}`, { reason, metadata: { volumeId: id } });
}

const shrinkRefused = (volume: Volume, problem: string): ShimError => precondition(volume, 'SHRINK_REFUSED', problem);

function integrityAsked(encryption: Volume['spec']['encryption']): boolean {
  return encryption?.kind === 'guest-luks2' && (encryption satisfies GuestLuks2Spec).integrity;
}

/** What the source has on the host now, in bytes that the guest would see. @throws ShimError as the module does */
async function onHost(host: VolumeHost, { spec, resolved, identity }: Volume): Promise<number> {
  // Only its length is asked for: neither what lies in it, nor whether a disk can have that length.
  const use = { ...intendedUse(spec), createsIfEmpty: false, logicalBlockSize: 1 };
  const found = await lookAtSource(resolved, use, host.config);
  if (found.identity === identity.backingIdentity) return found.sizeBytes;
  throw new ShimError('FAILED_PRECONDITION', `${identity.resolvedPath} is not what the guest has any more`, {
    reason: 'RESIZE_FAILED',
    metadata: { volumeId: identity.volumeId, path: identity.resolvedPath },
  });
}

/** The most that a disk can have of it. */
async function offered(host: VolumeHost, volume: Volume): Promise<number> {
  refuseState(volume);
  const { logicalBlockSize } = volume.spec;
  return Math.floor((await onHost(host, volume)) / logicalBlockSize) * logicalBlockSize;
}

/** A file that is longer than the guest's disk may hold somebody's bytes there: QEMU would cut it, and not ask. */
async function refuseToCut(host: VolumeHost, volume: Volume, sizeBytes: number, inQemu: number): Promise<void> {
  if (!moduleOf(volume.resolved).canBeCut) return;
  const has = Math.max(await onHost(host, volume), inQemu);
  if (has > sizeBytes) {
    throw shrinkRefused(volume, `has a source of ${has} bytes, which ${sizeBytes} would cut; ask for ${has} or more`);
  }
}

/**
 * Image and disk, as QEMU shows them afterwards. Nothing is begun for a caller whose `wait` for its turn has ended.
 * @returns the bytes that were seen
 */
async function growDisk(host: VolumeHost, volume: Volume, sizeBytes: number, wait: WaitLimits): Promise<number> {
  using _held = await volume.mutex.acquireForCaller(wait);
  host.gone.throwIfAborted();
  refuse(volume, sizeBytes);
  // Under the mutex, so not for ever: the end of the VM needs it too.
  const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
  const { root } = volume.names;
  await refuseToCut(host, volume, sizeBytes, (await virtualSize(qmp, root)) ?? 0);
  try {
    // The top node: below a filter or format nothing would change, and QEMU would not say so.
    await qmp.run('block_resize', { 'node-name': root, size: sizeBytes });
  } catch (error) {
    if (!isQmpError(error)) throw error;
    // It may have done part of it.
    noteSize(host, volume, await virtualSize(qmp, root), sizeBytes);
    throw resizeFailed(volume, error.message, error);
  }
  // A device has the size that it has, whatever QEMU was asked for (block/file-posix.c, raw_co_truncate).
  const seen = await virtualSize(qmp, root);
  noteSize(host, volume, seen, sizeBytes);
  if (seen === undefined || seen < sizeBytes) throw resizeFailed(volume, `QEMU shows ${seen ?? 'nothing'} afterwards`);
  return seen;
}

async function virtualSize(qmp: QmpClient, node: string): Promise<number | undefined> {
  const nodes = await qmp.run('query-named-block-nodes', { flat: true });
  return nodes.find((each) => each['node-name'] === node)?.image['virtual-size'];
}

function resizeFailed(volume: Volume, problem: string, cause?: unknown): ShimError {
  return new ShimError('FAILED_PRECONDITION', `volume ${volume.id} cannot be resized: ${problem}`, {
    reason: 'RESIZE_FAILED',
    metadata: { volumeId: volume.id, path: volume.identity.resolvedPath },
    cause,
  });
}

async function growMapping(
  host: VolumeHost,
  volume: Volume,
  pci: DiskIdentity['pci'],
  key: LuksKey,
  diskBytes: number,
  timeoutMs: number,
): Promise<void> {
  const { serial, mount } = volume.spec;
  const disk = { pci, serial, name: mappingName(volume.id) };
  await resizeLuks2(host.agent, { ...disk, key, diskBytes, mountPoint: mount?.mountPoint, timeoutMs });
}
