import { invalidArgument } from '../../base/errors.ts';
import type { KeyReference } from '../../keys/reference.ts';
import type { RequestedSpec } from './spec.ts';

/**
 * Encryption as a caller asks for it. The two kinds do not promise the same: `host-luks` protects data at rest from whoever
 * gets hold of the disk, not from the host; `guest-luks2` protects it from the host as well. Keys are references throughout.
 */

export type LuksMode = 'create' | 'open' | 'open_or_create_if_empty';

/** LUKS1, opened by QEMU's luks driver: the guest sees plain blocks. */
export interface HostLuksSpec {
  readonly kind: 'host-luks';
  /** Undefined only when the record was read back from QEMU, which does not know it. */
  readonly key: KeyReference | undefined;
  /** `if_empty`: a source that is provably empty is made an encrypted one. */
  readonly format: 'never' | 'if_empty';
  /** Bytes that the guest is to see; 0: as many as fit the source. One that exists must have at least that many. */
  readonly sizeBytes: number;
  readonly cipher: HostCipher;
  readonly hash: HostHash;
  /** How long QEMU is to work on a key, once to make the disk and once for each opening; the VM stands still meanwhile. */
  readonly iterationMs: number;
  /** The LUKS UUID that an existing image must have; empty: any. */
  readonly uuid: string;
}

/** LUKS2 in the guest, on a disk that the host hands over raw. */
export interface GuestLuks2Spec {
  readonly kind: 'guest-luks2';
  /** `ephemeral`: made in the guest, known to nobody else, gone with the guest. */
  readonly key: { readonly kind: 'ephemeral' } | { readonly kind: 'provided'; readonly reference: KeyReference };
  readonly mode: LuksMode;
  readonly integrity: boolean;
  /** Bytes, for a disk that is made. */
  readonly sectorSize: 512 | 4096;
  /** The LUKS UUID that an existing one must have; empty: any. */
  readonly uuid: string;
}

export type EncryptionSpec = HostLuksSpec | GuestLuks2Spec;

export const HOST_CIPHERS = ['aes-128', 'aes-192', 'aes-256', 'serpent-256', 'twofish-256'] as const;
export type HostCipher = (typeof HOST_CIPHERS)[number];
export const HOST_HASHES = ['sha1', 'sha256', 'sha512'] as const;
export type HostHash = (typeof HOST_HASHES)[number];

/** As HostLuksSpec and GuestLuks2Spec, where empty strings, zeroes and undefined ask for the default. */
export type RequestedEncryption =
  | {
      readonly kind: 'host-luks';
      readonly key: KeyReference | undefined;
      readonly format: 'never' | 'if_empty';
      readonly sizeBytes: number;
      readonly cipher: string;
      readonly hash: string;
      readonly iterationMs: number;
      readonly uuid: string;
    }
  | {
      readonly kind: 'guest-luks2';
      readonly key: GuestLuks2Spec['key'] | undefined;
      readonly mode: LuksMode;
      readonly integrity: boolean;
      readonly sectorSize: number;
      readonly uuid: string;
    };

/** QEMU's own default. */
const ITERATION_MS_DEFAULT = 2000;
const ITERATION_MS_MAX = 60_000;
const SECTOR_BYTES = 512;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Fills in the defaults and refuses what contradicts itself or the rest of the spec.
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function completeEncryption(
  requested: RequestedEncryption,
  volume: Pick<RequestedSpec, 'source' | 'readOnly'>,
): EncryptionSpec {
  return requested.kind === 'host-luks' ? completeHost(requested, volume) : completeGuest(requested, volume);
}

function completeHost(
  requested: Extract<RequestedEncryption, { kind: 'host-luks' }>,
  { source, readOnly }: Pick<RequestedSpec, 'source' | 'readOnly'>,
): HostLuksSpec {
  const field = 'spec.encryption.host_luks';
  const { key, format, sizeBytes, cipher, hash, iterationMs } = requested;
  if (source?.kind === 'qcow2-file') {
    throw invalidArgument('spec.source', 'qcow2_file', 'host_luks needs a raw file or a block device');
  }
  if (key === undefined) throw invalidArgument(`${field}.key`, '', 'is missing');
  checkReference(`${field}.key`, key);
  if (format === 'if_empty' && readOnly) {
    throw invalidArgument(`${field}.format`, 'if_empty', 'a read-only volume cannot be formatted');
  }
  if (sizeBytes % SECTOR_BYTES !== 0 || !Number.isSafeInteger(sizeBytes)) {
    throw invalidArgument(`${field}.size_bytes`, sizeBytes, `must be a multiple of ${SECTOR_BYTES}`);
  }
  if (iterationMs > ITERATION_MS_MAX) {
    throw invalidArgument(`${field}.iteration_ms`, iterationMs, `at most ${ITERATION_MS_MAX}`);
  }
  return {
    kind: 'host-luks',
    key,
    format,
    sizeBytes,
    cipher: oneOf(`${field}.cipher`, HOST_CIPHERS, cipher === '' ? 'aes-256' : cipher),
    hash: oneOf(`${field}.hash`, HOST_HASHES, hash === '' ? 'sha256' : hash),
    iterationMs: iterationMs === 0 ? ITERATION_MS_DEFAULT : iterationMs,
    uuid: checkUuid(`${field}.uuid`, requested.uuid),
  };
}

function completeGuest(
  requested: Extract<RequestedEncryption, { kind: 'guest-luks2' }>,
  { readOnly }: Pick<RequestedSpec, 'readOnly'>,
): GuestLuks2Spec {
  const field = 'spec.encryption.guest_luks2';
  const { key, mode, integrity, sectorSize } = requested;
  if (key === undefined) {
    throw invalidArgument(`${field}.key`, '', 'one of ephemeral_key and provided_key is needed');
  }
  if (key.kind === 'provided') checkReference(`${field}.provided_key`, key.reference);
  if (mode === 'create' && readOnly) {
    throw invalidArgument(`${field}.mode`, mode, 'nothing can be created on a read-only volume');
  }
  if (sectorSize !== 0 && sectorSize !== 512 && sectorSize !== 4096) {
    throw invalidArgument(`${field}.sector_size`, sectorSize, 'must be 512 or 4096 bytes');
  }
  const uuid = checkUuid(`${field}.uuid`, requested.uuid);
  return { kind: 'guest-luks2', key, mode, integrity, sectorSize: sectorSize === 512 ? 512 : 4096, uuid };
}

/**
 * Whether a reference can mean anything; what it may mean is the operator's configuration.
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function checkReference(field: string, reference: KeyReference): void {
  if ('path' in reference) {
    if (!reference.path.startsWith('/') || /\0|(^|\/)\.\.?(\/|$)/.test(reference.path)) {
      throw invalidArgument(`${field}.${reference.kind}`, reference.path, 'must be an absolute, plain path');
    }
  } else if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/.test(reference.name)) {
    throw invalidArgument(`${field}.${reference.kind}`, reference.name, 'must be a plain name');
  }
}

function oneOf<T extends string>(field: string, values: readonly T[], value: string): T {
  const found = values.find((one) => one === value);
  if (found === undefined) throw invalidArgument(field, value, `must be one of ${values.join(', ')}`);
  return found;
}

function checkUuid(field: string, uuid: string): string {
  if (uuid !== '' && !UUID.test(uuid)) throw invalidArgument(field, uuid, 'is no UUID in lower-case hexadecimal');
  return uuid;
}

/** The name of a volume's mapping in the guest, the same in all its generations: an ephemeral key is found by it. */
export function mappingName(volumeId: string): string {
  return `${volumeId}-crypt`;
}

/** How an encrypted volume turned out to be encrypted. Nothing in it is secret. */
export interface EncryptionView {
  readonly format: 'luks1' | 'luks2';
  /** As cryptsetup writes it, e.g. "aes-xts-plain64". */
  readonly cipher: string;
  /** Bytes. */
  readonly sectorSize: number;
  readonly integrity: boolean;
  /** Key slots in use. */
  readonly keySlots: number;
  readonly uuid: string;
  /** True when Attach made it. */
  readonly created: boolean;
  /** The device that the guest is to use, "/dev/mapper/..."; empty when it is the disk itself. */
  readonly mappedDevice: string;
}
