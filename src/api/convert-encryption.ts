import { invalidArgument } from '../base/errors.ts';
import type { EncryptionSpec, EncryptionView, RequestedEncryption } from '../volume/model/encryption.ts';
import type { KeyReference } from '../keys/reference.ts';
import type { Encryption, Encryption__Output } from '../grpc/generated/qshim/v1/Encryption.ts';
import type { EncryptionStatus } from '../grpc/generated/qshim/v1/EncryptionStatus.ts';
import type { GuestLuks2__Output } from '../grpc/generated/qshim/v1/GuestLuks2.ts';
import type { HostLuks__Output } from '../grpc/generated/qshim/v1/HostLuks.ts';
import type {
  KeyReference as KeyReferenceMessage,
  KeyReference__Output,
} from '../grpc/generated/qshim/v1/KeyReference.ts';
import { known, nameOf } from '../grpc/enum-names.ts';

/** Encryption and references to keys: proto messages to domain values and back. */

/** Whether something may be made where nothing is: of a mount's file system, and of an image. */
export const FORMATS = { FORMAT_NEVER: 'never', FORMAT_IF_EMPTY: 'if_empty' } as const;
const MODES = {
  LUKS_MODE_OPEN: 'open',
  LUKS_MODE_CREATE: 'create',
  LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY: 'open_or_create_if_empty',
} as const;

/** @throws ShimError INVALID_ARGUMENT */
export function encryptionFrom(message: Encryption__Output | null): RequestedEncryption | undefined {
  if (message === null) return undefined;
  if (message.hostLuks) return hostLuksFrom(message.hostLuks);
  if (message.guestLuks2) return guestLuks2From(message.guestLuks2);
  throw invalidArgument('spec.encryption', '', 'one of host_luks and guest_luks2 is needed');
}

function hostLuksFrom(message: HostLuks__Output): RequestedEncryption {
  const { sizeBytes, cipher, hash, iterationMs, uuid } = message;
  const field = 'spec.encryption.host_luks';
  return {
    kind: 'host-luks',
    key: message.key === null ? undefined : keyReferenceFrom(`${field}.key`, message.key),
    format: known(`${field}.format`, FORMATS, message.format),
    ...{ sizeBytes, cipher, hash, iterationMs, uuid },
  };
}

function guestLuks2From(message: GuestLuks2__Output): RequestedEncryption {
  const { integrity, sectorSize, uuid } = message;
  const field = 'spec.encryption.guest_luks2';
  return {
    kind: 'guest-luks2',
    key: guestKeyFrom(`${field}.provided_key`, message),
    mode: known(`${field}.mode`, MODES, message.mode),
    ...{ integrity, sectorSize, uuid },
  };
}

function guestKeyFrom(
  field: string,
  message: GuestLuks2__Output,
): Extract<RequestedEncryption, { kind: 'guest-luks2' }>['key'] {
  if (message.ephemeralKey) return { kind: 'ephemeral' };
  if (message.providedKey) return { kind: 'provided', reference: keyReferenceFrom(field, message.providedKey) };
  return undefined;
}

/** @throws ShimError INVALID_ARGUMENT when no source is named */
export function keyReferenceFrom(field: string, message: KeyReference__Output): KeyReference {
  switch (message.source) {
    case 'file':
      return { kind: 'file', path: message.file ?? '' };
    case 'systemdCredential':
      return { kind: 'systemd-credential', name: message.systemdCredential ?? '' };
    case 'environment':
      return { kind: 'environment', name: message.environment ?? '' };
    case 'command':
      return { kind: 'command', name: message.command ?? '' };
    case 'tang':
      return { kind: 'tang', path: message.tang ?? '' };
    default:
      throw invalidArgument(field, '', 'one of file, systemd_credential, environment, command and tang is needed');
  }
}

function keyReferenceMessage(reference: KeyReference): KeyReferenceMessage {
  switch (reference.kind) {
    case 'file':
      return { file: reference.path };
    case 'systemd-credential':
      return { systemdCredential: reference.name };
    case 'environment':
      return { environment: reference.name };
    case 'command':
      return { command: reference.name };
    case 'tang':
      return { tang: reference.path };
  }
}

export function encryptionMessage(spec: EncryptionSpec | undefined): Encryption | null {
  if (spec === undefined) return null;
  if (spec.kind === 'host-luks') {
    const { key, format, sizeBytes, cipher, hash, iterationMs, uuid } = spec;
    return {
      hostLuks: {
        key: key === undefined ? null : keyReferenceMessage(key),
        format: nameOf(FORMATS, format),
        ...{ sizeBytes, cipher, hash, iterationMs, uuid },
      },
    };
  }
  const { key, mode, integrity, sectorSize, uuid } = spec;
  return {
    guestLuks2: {
      ...(key.kind === 'ephemeral' ? { ephemeralKey: {} } : { providedKey: keyReferenceMessage(key.reference) }),
      mode: nameOf(MODES, mode),
      ...{ integrity, sectorSize, uuid },
    },
  };
}

export function encryptionStatusMessage(view: EncryptionView | undefined): EncryptionStatus | null {
  return view === undefined ? null : { ...view };
}
