import { mappingName, type EncryptionView, type GuestLuks2Spec } from './model/encryption.ts';
import { closeLuks2, openLuks2, type ClosedLuks2, type LuksKey, type OpenedLuks2 } from '../guest/luks.ts';
import type { DiskIdentity } from '../guest/disks.ts';
import type { KeyMaterial } from '../keys/material.ts';
import type { Volume } from './volume.ts';
import type { VolumeHost } from './host.ts';

/** Encryption in the guest (`guest-luks2`), as attach and detach use it. */

/** The spec's encryption, when it is the guest's business. */
export function guestEncryption(volume: Volume): GuestLuks2Spec | undefined {
  const { encryption } = volume.spec;
  return encryption?.kind === 'guest-luks2' ? encryption : undefined;
}

/**
 * Opens the disk in the guest, or makes an encrypted one of it, and mounts what is asked for, in one step. What fails
 * fails the attach: there is no way on without encryption.
 * @throws ShimError as openLuks2
 */
export async function openInGuest(
  host: VolumeHost,
  volume: Volume,
  encryption: GuestLuks2Spec,
  pci: DiskIdentity['pci'],
  key: KeyMaterial | undefined,
): Promise<OpenedLuks2> {
  const { serial, readOnly, mount } = volume.spec;
  const { mode, integrity, sectorSize, uuid } = encryption;
  const open = async (luksKey: LuksKey): Promise<OpenedLuks2> =>
    await openLuks2(host.agent, {
      pci,
      serial,
      name: mappingName(volume.id),
      ...{ mode, integrity, sectorSize, uuid, readOnly },
      key: luksKey,
      proof: { seen: volume.look.emptiness, readBytesMax: host.config.empty_scan_bytes_max },
      ...(mount && { mount }),
      timeoutMs: host.config.mount_timeout_ms,
    });
  // Set before the guest is asked: what fails half-way may have left a mapping.
  host.volumes.apply(volume, { kind: 'mapped', mapping: true });
  if (mount !== undefined) host.volumes.apply(volume, { kind: 'mounted', mount: true });
  const opened =
    key === undefined
      ? await open({ kind: 'ephemeral' })
      : await key.use((material) => open({ kind: 'provided', material }));
  host.volumes.apply(volume, { kind: 'encrypted', encryption: viewOf(opened) });
  return opened;
}

function viewOf(opened: OpenedLuks2): EncryptionView {
  const { device, cipher, sectorSize, integrity, keySlots, uuid, created } = opened;
  return { format: 'luks2', cipher, sectorSize, integrity, keySlots, uuid, created, mappedDevice: device };
}

/**
 * Unmounts what lies on the mapping, and closes it. `released`: by force, the mapping has lost key and disk, and only
 * its name is still there.
 * @throws ShimError as closeLuks2
 */
export async function closeInGuest(
  host: VolumeHost,
  volume: Volume,
  pci: DiskIdentity['pci'],
  options: { readonly force: boolean; readonly timeoutMs: number },
): Promise<{ readonly done: true } | (Extract<ClosedLuks2, { closed: false }> & { readonly done: false })> {
  const { force, timeoutMs } = options;
  const disk = { pci, serial: volume.spec.serial, name: mappingName(volume.id) };
  const result = await closeLuks2(host.agent, { ...disk, force, forget: false, timeoutMs });
  if (result.closed || (force && result.released)) {
    host.volumes.apply(volume, { kind: 'mounted', mount: false });
    host.volumes.apply(volume, { kind: 'mapped', mapping: false });
    return { done: true };
  }
  return { done: false, ...result };
}
