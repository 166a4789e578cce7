import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { Deadline } from '../base/deadline.ts';
import { ShimError } from '../base/errors.ts';
import type { ReasonWith } from '../base/reasons.ts';
import type { Emptiness } from './model/emptiness.ts';
import type { EncryptionView, HostLuksSpec } from './model/encryption.ts';
import { tellProgress } from '../files/progress.ts';
import { openKnown } from './source/open-file.ts';
import { lookForLuks, luks1OverheadBytes, LUKS1_HEADER_BYTES, type Luks1Header } from './model/luks1.ts';

/** What lies behind a `host_luks` volume on the host: an image that exists, or a source in which one may be made. */

const SCAN_CHUNK_BYTES = 4 * 1024 * 1024;
/** So few bytes may lie in the inode itself, where a file system counts no blocks for them. */
const INLINE_BYTES_MAX = 64 * 1024;
const LUKS1_SECTOR_BYTES = 512;
/** An attach waits so long for a look at a source that may be empty; after that the guest looks. */
const LOOK_MS_MAX = 10_000;

export interface LuksSource {
  readonly path: string;
  readonly handle: FileHandle;
  readonly sizeBytes: number;
  /** Of a regular file: what the file system has allocated. Undefined for a device. */
  readonly allocatedBytes: number | undefined;
}

/**
 * Reads the header, or proves that the source is empty and may be made an image. Changes nothing.
 * @param options.formats a file system is to be made if nobody ever wrote, so it is worth finding out
 * @returns the bytes that the guest will see; `blank`: an image has to be made first; `emptiness` is `noise` when
 *   nobody ever wrote through the encryption, since what lies below it is zero, which no ciphertext is
 * @throws ShimError FAILED_PRECONDITION: LUKS_NO_HEADER, LUKS_HEADER_DAMAGED, LUKS_VERSION_UNSUPPORTED,
 *   LUKS_DEVICE_TRUNCATED, LUKS_DEVICE_SWAPPED, SOURCE_NOT_EMPTY, SOURCE_TOO_SMALL
 */
export async function inspectLuks(
  source: LuksSource,
  spec: HostLuksSpec,
  options: { readonly scanBytesMax: number; readonly formats: boolean },
): Promise<{ readonly sizeBytes: number; readonly blank: boolean; readonly emptiness: Emptiness }> {
  const { path } = source;
  const look = lookForLuks(await readStart(source.handle));
  switch (look.kind) {
    case 'luks1': {
      const sizeBytes = existingSize(source, look.header, spec);
      const { payloadOffsetBytes } = look.header;
      const unwritten =
        options.formats &&
        sizeBytes <= options.scanBytesMax &&
        (await firstData(source, payloadOffsetBytes)) === undefined;
      return { sizeBytes, blank: false, emptiness: unwritten ? 'noise' : 'look' };
    }
    case 'other-version':
      throw luksRefusal(path, 'LUKS_VERSION_UNSUPPORTED', `is LUKS${look.version}; QEMU reads LUKS1`);
    case 'damaged':
      throw luksRefusal(path, 'LUKS_HEADER_DAMAGED', `has a damaged LUKS header: ${look.why}`);
    case 'none':
      if (spec.format === 'never') throw luksRefusal(path, 'LUKS_NO_HEADER', 'is not a LUKS image');
      await provenEmpty(source, options.scanBytesMax);
      return { sizeBytes: sizeToMake(source, spec), blank: true, emptiness: 'noise' };
  }
}

function existingSize(source: LuksSource, header: Luks1Header, spec: HostLuksSpec): number {
  const { path } = source;
  if (spec.uuid !== '' && spec.uuid !== header.uuid) {
    throw luksRefusal(path, 'LUKS_DEVICE_SWAPPED', `has the LUKS UUID ${header.uuid}, not ${spec.uuid}`);
  }
  const sizeBytes = source.sizeBytes - header.payloadOffsetBytes;
  if (sizeBytes <= 0) {
    throw luksRefusal(path, 'LUKS_DEVICE_TRUNCATED', 'ends before its data begins');
  }
  if (sizeBytes < spec.sizeBytes) {
    throw luksRefusal(path, 'LUKS_DEVICE_TRUNCATED', `holds ${sizeBytes} bytes, not the ${spec.sizeBytes} asked for`);
  }
  return sizeBytes;
}

/** A regular file is grown to what is asked for; a device cannot be. Neither is cut: an image fills what is there. */
function sizeToMake({ path, sizeBytes, allocatedBytes }: LuksSource, spec: HostLuksSpec): number {
  const room = sizeBytes - luks1OverheadBytes(spec.cipher);
  const wanted = Math.max(spec.sizeBytes, Math.floor(room / LUKS1_SECTOR_BYTES) * LUKS1_SECTOR_BYTES);
  if (wanted <= 0 || (wanted > room && allocatedBytes === undefined)) {
    const problem = `has ${sizeBytes} bytes, ${luks1OverheadBytes(spec.cipher)} of which a LUKS header takes`;
    throw luksRefusal(path, 'SOURCE_TOO_SMALL', problem);
  }
  return wanted;
}

/** A file without blocks is a hole from end to end; anything else is read, all of it. */
async function provenEmpty(source: LuksSource, scanBytesMax: number): Promise<void> {
  const { path, sizeBytes } = source;
  if (isHole(source)) return;
  if (sizeBytes > scanBytesMax) {
    const problem = `has ${sizeBytes} bytes, too many to prove it empty (empty_scan_bytes_max is ${scanBytesMax})`;
    throw luksRefusal(path, 'SOURCE_NOT_EMPTY', problem);
  }
  const at = await firstData(source, 0);
  if (at !== undefined) throw luksRefusal(path, 'SOURCE_NOT_EMPTY', `is not empty: there is data near byte ${at}`);
}

/** What lies in a source without encryption. Bounded in bytes and in time: what is too much for the host, is `look`. */
export async function lookAtBytes(source: LuksSource, scanBytesMax: number): Promise<Emptiness> {
  if (isHole(source)) return 'zero';
  if (source.sizeBytes > scanBytesMax) return 'look';
  const at = await firstData(source, 0, Deadline.after(LOOK_MS_MAX));
  if (at === 'unknown') return 'look';
  return at === undefined ? 'zero' : 'data';
}

function isHole({ sizeBytes, allocatedBytes }: LuksSource): boolean {
  return allocatedBytes === 0 && (sizeBytes === 0 || sizeBytes > INLINE_BYTES_MAX);
}

/** Where a byte that is not zero was found, or where the source ended too early; undefined when there is none. */
export async function firstData(
  source: Pick<LuksSource, 'handle' | 'sizeBytes'>,
  from: number,
): Promise<number | undefined>;
/** @param deadline when it has passed, the answer is `unknown` */
export async function firstData(
  source: Pick<LuksSource, 'handle' | 'sizeBytes'>,
  from: number,
  deadline: Deadline,
): Promise<number | 'unknown' | undefined>;
export async function firstData(
  { handle, sizeBytes }: Pick<LuksSource, 'handle' | 'sizeBytes'>,
  from: number,
  deadline?: Deadline,
): Promise<number | 'unknown' | undefined> {
  const zeroes = Buffer.alloc(SCAN_CHUNK_BYTES);
  const chunk = Buffer.allocUnsafe(SCAN_CHUNK_BYTES);
  for (let at = from; at < sizeBytes;) {
    if (deadline?.expired === true) return 'unknown';
    const { bytesRead } = await handle.read(chunk, 0, Math.min(SCAN_CHUNK_BYTES, sizeBytes - at), at);
    tellProgress();
    if (bytesRead === 0 || !chunk.subarray(0, bytesRead).equals(zeroes.subarray(0, bytesRead))) return at;
    at += bytesRead;
  }
  return undefined;
}

async function readStart(handle: FileHandle): Promise<Buffer> {
  const buffer = Buffer.alloc(LUKS1_HEADER_BYTES);
  const { bytesRead } = await handle.read(buffer, 0, buffer.length, 0);
  return buffer.subarray(0, bytesRead);
}

/**
 * The header of an image that is open in QEMU, or in nobody, as it is on the host now.
 * @param identity of the file, as it was found
 * @throws ShimError FAILED_PRECONDITION / LUKS_HEADER_DAMAGED, SOURCE_CHANGED; the system error when it cannot be read
 */
export async function readLuks1(path: string, identity: string): Promise<Luks1Header> {
  await using handle = await openKnown(path, identity, constants.O_RDONLY);
  const look = lookForLuks(await readStart(handle));
  if (look.kind === 'luks1') return look.header;
  throw luksRefusal(path, 'LUKS_HEADER_DAMAGED', 'has no readable LUKS1 header');
}

/** What callers see of an image. */
export function hostLuksView(header: Luks1Header, created: boolean): EncryptionView {
  return {
    format: 'luks1',
    cipher: header.cipher,
    sectorSize: LUKS1_SECTOR_BYTES,
    integrity: false,
    keySlots: header.slots.filter(Boolean).length,
    uuid: header.uuid,
    created,
    mappedDevice: '',
  };
}

/** A refusal for what an image is, or is not. */
export function luksRefusal(
  path: string,
  reason: ReasonWith<'FAILED_PRECONDITION'>,
  problem: string,
  cause?: unknown,
): ShimError {
  return new ShimError('FAILED_PRECONDITION', `${path} ${problem}`, { reason, metadata: { path }, cause });
}
