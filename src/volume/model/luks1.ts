import type { HostCipher } from './encryption.ts';

/**
 * The header of a LUKS1 image, as far as qshim reads it (LUKS On-Disk Format Specification 1.2.3): big-endian, 592
 * bytes. Pure. Nothing in it is secret.
 */
export interface Luks1Header {
  /** As cryptsetup writes it, e.g. "aes-xts-plain64". */
  readonly cipher: string;
  readonly hash: string;
  /** Where the data begins. */
  readonly payloadOffsetBytes: number;
  readonly uuid: string;
  /** For each of the eight slots: is it in use? */
  readonly slots: readonly boolean[];
}

export type LuksLook =
  | { readonly kind: 'luks1'; readonly header: Luks1Header }
  | { readonly kind: 'other-version'; readonly version: number }
  | { readonly kind: 'damaged'; readonly why: string }
  | { readonly kind: 'none' };

export const LUKS1_HEADER_BYTES = 592;
const MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1');
const SLOTS = 8;
const SLOTS_OFFSET = 208;
const SLOT_BYTES = 48;
const SLOT_USED = 0x00ac71f3;
const SLOT_FREE = 0x0000dead;
const KEY_BYTES_MAX = 64;
const STRIPES = 4000;
const SECTOR_BYTES = 512;
/** QEMU aligns header and key material to these (QCRYPTO_BLOCK_LUKS_DEFAULT_KEY_SLOT_OFFSET). */
const ALIGNMENT_BYTES = 4096;

/** What the first bytes of a source say. Fewer than 592 bytes can hold no LUKS1 header. */
export function lookForLuks(bytes: Buffer): LuksLook {
  if (bytes.length < MAGIC.length + 2 || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return { kind: 'none' };
  const version = bytes.readUInt16BE(6);
  if (version === 2) return { kind: 'other-version', version };
  if (version !== 1) return { kind: 'damaged', why: `its version is ${version}` };
  if (bytes.length < LUKS1_HEADER_BYTES) return { kind: 'damaged', why: 'its header is cut short' };
  const cipher = `${textAt(bytes, 8, 32)}-${textAt(bytes, 40, 32)}`;
  const hash = textAt(bytes, 72, 32);
  const payloadOffsetBytes = bytes.readUInt32BE(104) * SECTOR_BYTES;
  const keyBytes = bytes.readUInt32BE(108);
  const uuid = textAt(bytes, 168, 40);
  const marks = Array.from({ length: SLOTS }, (_, slot) => bytes.readUInt32BE(SLOTS_OFFSET + slot * SLOT_BYTES));
  const why = problemOf({ cipher, hash, payloadOffsetBytes, keyBytes, uuid, marks });
  if (why !== undefined) return { kind: 'damaged', why };
  const slots = marks.map((mark) => mark === SLOT_USED);
  return { kind: 'luks1', header: { cipher, hash, payloadOffsetBytes, uuid, slots } };
}

function problemOf(header: {
  readonly cipher: string;
  readonly hash: string;
  readonly payloadOffsetBytes: number;
  readonly keyBytes: number;
  readonly uuid: string;
  readonly marks: readonly number[];
}): string | undefined {
  if (!/^[a-z0-9]+-[a-z0-9]+(-[a-z0-9:]+)?$/.test(header.cipher) || !/^[a-z0-9]+$/.test(header.hash)) {
    return 'its cipher or hash has no name';
  }
  if (!/^[0-9a-f-]{36}$/.test(header.uuid)) return 'its UUID is none';
  if (header.keyBytes === 0 || header.keyBytes > KEY_BYTES_MAX) return `its key has ${header.keyBytes} bytes`;
  if (header.payloadOffsetBytes < LUKS1_HEADER_BYTES) return 'its data begins inside its header';
  const stray = header.marks.findIndex((mark) => mark !== SLOT_USED && mark !== SLOT_FREE);
  if (stray !== -1) return `key slot ${stray} is neither used nor free`;
  return header.marks.includes(SLOT_USED) ? undefined : 'no key slot is in use';
}

function textAt(bytes: Buffer, offset: number, length: number): string {
  const field = bytes.subarray(offset, offset + length);
  const end = field.indexOf(0);
  return field.toString('latin1', 0, end === -1 ? length : end);
}

/** How many bytes QEMU puts before the data of an image that it makes. In XTS mode there are two keys. */
export function luks1OverheadBytes(cipher: HostCipher): number {
  const keyBytes = (Number(cipher.split('-')[1]) / 8) * 2;
  return ALIGNMENT_BYTES + SLOTS * roundUp(keyBytes * STRIPES, ALIGNMENT_BYTES);
}

function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}
