import { z } from 'zod';
import { invalidArgument } from '../../base/errors.ts';
import type { KeyReference } from '../../keys/reference.ts';
import { maybe } from './maybe.ts';

/**
 * Encryption as a caller asks for it. The two kinds do not promise the same: `host-luks` protects data at rest from
 * whoever gets hold of the disk, not from the host; `guest-luks2` protects it from the host as well. Keys are
 * references throughout.
 */

export const HOST_CIPHERS = ['aes-128', 'aes-192', 'aes-256', 'serpent-256', 'twofish-256'] as const;
export type HostCipher = (typeof HOST_CIPHERS)[number];
export const HOST_HASHES = ['sha1', 'sha256', 'sha512'] as const;

const keyReferenceSchema = z.union([
  z.object({ kind: z.enum(['file', 'tang']), path: z.string() }).readonly(),
  z.object({ kind: z.enum(['systemd-credential', 'environment', 'command']), name: z.string() }).readonly(),
]) satisfies z.ZodType<KeyReference>;

/** LUKS1, opened by QEMU's luks driver: the guest sees plain blocks. */
export const hostLuksSchema = z
  .object({
    kind: z.literal('host-luks'),
    /** Undefined only when the record was read back from QEMU, which does not know it. */
    key: maybe(keyReferenceSchema),
    /** `if_empty`: a source that is provably empty is made an encrypted one. */
    format: z.enum(['never', 'if_empty']),
    /** Bytes that the guest is to see; 0: as many as fit the source. One that exists must have at least that many. */
    sizeBytes: z.int(),
    cipher: z.enum(HOST_CIPHERS),
    hash: z.enum(HOST_HASHES),
    /**
     * How long QEMU is to work on a key, once to make the disk and once for each opening; the VM stands still
     * meanwhile.
     */
    iterationMs: z.int(),
    /** The LUKS UUID that an existing image must have; empty: any. */
    uuid: z.string(),
  })
  .readonly();

/** LUKS2 in the guest, on a disk that the host hands over raw. */
const guestLuks2Schema = z
  .object({
    kind: z.literal('guest-luks2'),
    /** `ephemeral`: made in the guest, known to nobody else, gone with the guest. */
    key: z.union([
      z.object({ kind: z.literal('ephemeral') }).readonly(),
      z.object({ kind: z.literal('provided'), reference: keyReferenceSchema }).readonly(),
    ]),
    mode: z.enum(['create', 'open', 'open_or_create_if_empty']),
    integrity: z.boolean(),
    /** Bytes, for a disk that is made. */
    sectorSize: z.union([z.literal(512), z.literal(4096)]),
    /** The LUKS UUID that an existing one must have; empty: any. */
    uuid: z.string(),
  })
  .readonly();

export const encryptionSchema = z.union([hostLuksSchema, guestLuks2Schema]);

export type HostLuksSpec = z.infer<typeof hostLuksSchema>;
export type GuestLuks2Spec = z.infer<typeof guestLuks2Schema>;
export type EncryptionSpec = z.infer<typeof encryptionSchema>;
export type LuksMode = GuestLuks2Spec['mode'];

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

/** What encryption needs to know of a kind of source. */
export interface LuksCarrier {
  /** Its name in the API. */
  readonly apiName: string;
  /** Whether QEMU can open a LUKS image in it, and qshim can look at its header. */
  readonly carriesHostLuks: boolean;
}

/**
 * Fills in the defaults and refuses what contradicts itself or the rest of the spec.
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function completeEncryption(
  requested: RequestedEncryption,
  volume: { readonly readOnly: boolean; readonly source: LuksCarrier },
): EncryptionSpec {
  return requested.kind === 'host-luks' ? completeHost(requested, volume) : completeGuest(requested, volume.readOnly);
}

function completeHost(
  requested: Extract<RequestedEncryption, { kind: 'host-luks' }>,
  { source, readOnly }: { readonly readOnly: boolean; readonly source: LuksCarrier },
): HostLuksSpec {
  const field = 'spec.encryption.host_luks';
  const { key, format, sizeBytes, cipher, hash, iterationMs } = requested;
  if (!source.carriesHostLuks) {
    throw invalidArgument('spec.source', source.apiName, 'host_luks needs a raw file or a block device');
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
  readOnly: boolean,
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
export const encryptionViewSchema = z
  .object({
    format: z.enum(['luks1', 'luks2']),
    /** As cryptsetup writes it, e.g. "aes-xts-plain64". */
    cipher: z.string(),
    /** Bytes. */
    sectorSize: z.int(),
    integrity: z.boolean(),
    /** Key slots in use. */
    keySlots: z.int(),
    uuid: z.string(),
    /** True when Attach made it. */
    created: z.boolean(),
    /** The device that the guest is to use, "/dev/mapper/..."; empty when it is the disk itself. */
    mappedDevice: z.string(),
  })
  .readonly();
export type EncryptionView = z.infer<typeof encryptionViewSchema>;

/** Stands in the volume, and in the journal, for as long as an image is being made. */
export const imageCreationSchema = z
  .object({
    /** What a regular file had before; 0 for a device. Bytes. */
    sourceBytes: z.int(),
    /** When a regular file was born (statx's btime), milliseconds: its inode may go to another file. */
    bornMs: z.number().optional(),
  })
  .readonly();
export type ImageCreation = z.infer<typeof imageCreationSchema>;
