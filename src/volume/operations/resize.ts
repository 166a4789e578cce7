import { waitFor, type WaitLimits } from '../../base/deadline.ts';
import { invalidArgument, ShimError } from '../../base/errors.ts';
import type { ReasonWith } from '../../base/reasons.ts';
import { resizeDisk, type DiskIdentity } from '../../guest/disks.ts';
import { resizeLuks2, type LuksKey } from '../../guest/luks.ts';
import { isQmpError } from '../../qmp/errors.ts';
import { guestEncryption } from '../guest-crypt.ts';
import type { VolumeHost } from '../host.ts';
import { fetchKey } from '../key.ts';
import { mappingName, type GuestLuks2Spec } from '../model/encryption.ts';
import type { Volume, VolumeSnapshot } from '../volume.ts';
import { operate } from './slot.ts';

/**
 * Grows an attached volume, from the bottom up: image, disk, encryption, file system. Each is looked at afterwards, and
 * a repeat with the same size goes on where the last one stopped.
 * @throws ShimError INVALID_ARGUMENT; FAILED_PRECONDITION: VOLUME_NOT_ATTACHED, VOLUME_READ_ONLY, SHRINK_REFUSED,
 *   OPERATION_IN_PROGRESS, RESIZE_FAILED, GUEST_SIZE_NOT_SEEN, GUEST_RESIZE_FAILED, LUKS_WRONG_KEY; UNIMPLEMENTED /
 *   LUKS_RESIZE_UNSUPPORTED
 */
export async function resizeVolume(
  host: VolumeHost,
  volume: Volume,
  options: { readonly sizeBytes: number; readonly timeoutMs: number; readonly callerWait: AbortSignal },
): Promise<VolumeSnapshot> {
  const { sizeBytes, callerWait } = options;
  const timeoutMs = options.timeoutMs === 0 ? host.config.mount_timeout_ms : options.timeoutMs;
  refuse(volume, sizeBytes);
  const wait = { milliseconds: timeoutMs, signal: callerWait };
  const work = operate(host, volume, { kind: 'resize', sizeBytes, timeoutMs }, () =>
    grow(host, volume, sizeBytes, timeoutMs, wait),
  );
  work.catch(() => undefined); // The caller may go; what was begun is finished.
  await waitFor(work, { signal: callerWait });
  return volume.snapshot();
}

/** For a resize that an earlier daemon began. @throws as resizeVolume */
export async function growAgain(
  host: VolumeHost,
  volume: Volume,
  { sizeBytes, timeoutMs }: { readonly sizeBytes: number; readonly timeoutMs: number },
): Promise<void> {
  await grow(host, volume, sizeBytes, timeoutMs, { milliseconds: timeoutMs });
}

/** @param wait for the volume's turn */
async function grow(
  host: VolumeHost,
  volume: Volume,
  sizeBytes: number,
  timeoutMs: number,
  wait: WaitLimits,
): Promise<void> {
  // Before anything is changed: a key that is not to be had leaves the volume as it is.
  using key = guestEncryption(volume) === undefined ? undefined : await fetchKey(host, volume.spec);
  await growDisk(host, volume, sizeBytes, wait);
  // The mutex is free while the guest works; its scripts wait for each other.
  const pci = await host.addresses.of(await host.link.ready(), volume.identity.slot);
  if (pci === undefined || !host.agentReady) {
    if (volume.spec.mount === undefined && guestEncryption(volume) === undefined) return;
    throw new ShimError('UNAVAILABLE', `the disk has grown, but the guest of volume ${volume.id} cannot be asked`, {
      reason: 'GUEST_AGENT_LOST',
      metadata: { volumeId: volume.id },
    });
  }
  const encryption = guestEncryption(volume);
  if (encryption === undefined) {
    const disk = { pci, serial: volume.spec.serial, sizeBytes, grow: mountsWholeDisk(volume), timeoutMs };
    await resizeDisk(host.agent, disk);
    return;
  }
  const open = (luksKey: LuksKey): Promise<void> => growMapping(host, volume, pci, luksKey, sizeBytes, timeoutMs);
  await (key === undefined ? open({ kind: 'ephemeral' }) : key.use((material) => open({ kind: 'provided', material })));
}

/** A partition keeps its size when its disk grows. */
function mountsWholeDisk({ spec: { mount } }: Volume): boolean {
  return mount !== undefined && mount.partition === undefined;
}

function refuse(volume: Volume, sizeBytes: number): void {
  const metadata = { volumeId: volume.id };
  const { spec, state } = volume;
  if (sizeBytes === 0 || sizeBytes % spec.logicalBlockSize !== 0 || !Number.isSafeInteger(sizeBytes)) {
    throw invalidArgument('size_bytes', sizeBytes, `must be a multiple of ${spec.logicalBlockSize}, and not 0`);
  }
  const precondition = (reason: ReasonWith<'FAILED_PRECONDITION'>, problem: string): ShimError =>
    new ShimError('FAILED_PRECONDITION', `volume ${volume.id} ${problem}`, { reason, metadata });
  if (state.state !== 'attached') throw precondition('VOLUME_NOT_ATTACHED', `is ${state.state}, not attached`);
  if (spec.readOnly) throw precondition('VOLUME_READ_ONLY', 'is read-only');
  if (sizeBytes < volume.sizeBytes) {
    throw precondition('SHRINK_REFUSED', `has ${volume.sizeBytes} bytes; it may only grow, not to ${sizeBytes}`);
  }
  if (volume.encryption?.integrity === true || integrityAsked(spec.encryption)) {
    throw new ShimError('UNIMPLEMENTED', `volume ${volume.id} is protected by dm-integrity, which cannot be resized`, {
      reason: 'LUKS_RESIZE_UNSUPPORTED',
      metadata,
    });
  }
}

function integrityAsked(encryption: Volume['spec']['encryption']): boolean {
  return encryption?.kind === 'guest-luks2' && (encryption satisfies GuestLuks2Spec).integrity;
}

/** Image and disk, as QEMU shows them afterwards. Nothing is begun for a caller whose `wait` for its turn has ended. */
async function growDisk(host: VolumeHost, volume: Volume, sizeBytes: number, wait: WaitLimits): Promise<void> {
  using _held = await volume.mutex.acquireForCaller(wait);
  host.gone.throwIfAborted();
  refuse(volume, sizeBytes);
  // Under the mutex, so not for ever: the end of the VM needs it too.
  const qmp = await host.link.within(host.config.qmp_reply_timeout_ms, host.gone);
  const { root } = volume.names;
  try {
    // The top node: below a filter or format nothing would change, and QEMU would not say so.
    await qmp.run('block_resize', { 'node-name': root, size: sizeBytes });
  } catch (error) {
    if (!isQmpError(error)) throw error;
    throw resizeFailed(volume, error.message, error);
  }
  const nodes = await qmp.run('query-named-block-nodes', { flat: true });
  const seen = nodes.find((node) => node['node-name'] === root)?.image['virtual-size'];
  if (seen !== sizeBytes) throw resizeFailed(volume, `QEMU shows ${seen ?? 'nothing'} afterwards`);
  host.volumes.apply(volume, { kind: 'sized', sizeBytes });
  host.commitSoon();
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
  const { serial } = volume.spec;
  await resizeLuks2(host.agent, { pci, serial, name: mappingName(volume.id), key, diskBytes, timeoutMs });
}
