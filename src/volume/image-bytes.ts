import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { readFile, type FileHandle } from 'node:fs/promises';
import { isShimError } from '../base/errors.ts';
import { firstData } from './luks-image.ts';
import type { HostLuksSpec, ImageCreation } from './model/encryption.ts';
import { LUKS1_HEADER_BYTES, lookForLuks, luks1OverheadBytes } from './model/luks1.ts';
import { openKnown } from './source/open-file.ts';

/** The bytes of an image that was begun and not finished (image-undo.ts). Runs in a helper. */

/** Before it QEMU puts the header alone. */
const KEY_MATERIAL_OFFSET_BYTES = 4096;

/** What is known of it. */
export interface BegunImage {
  readonly path: string;
  readonly backingIdentity: string;
  readonly encryption: HostLuksSpec;
  /** Bytes, as the guest was to see them. */
  readonly sizeBytes: number;
}

/** What there is before an image is made of it; to be written to the journal first. @throws as openKnown */
export async function beforeCreation(path: string, identity: string): Promise<ImageCreation> {
  await using handle = await openKnown(path, identity, constants.O_RDONLY);
  const found = await handle.stat();
  return found.isFile() ? { sourceBytes: found.size, bornMs: found.birthtimeMs } : { sourceBytes: 0 };
}

/** What lies where a block device's header is; undefined for a file. @throws as openKnown */
export async function digestOfDevice(
  path: string,
  identity: string,
  cipher: HostLuksSpec['cipher'],
): Promise<string | undefined> {
  await using handle = await openKnown(path, identity, constants.O_RDONLY);
  if (!(await handle.stat()).isBlockDevice()) return undefined;
  return digest(await readFirst(handle, luks1OverheadBytes(cipher)));
}

/**
 * Makes it empty again.
 * @param options.left a block device's digest, as it was when QEMU had it open
 * @returns why it was left as it is
 */
export async function emptyAgain(
  { path, backingIdentity, encryption, sizeBytes }: BegunImage,
  creating: ImageCreation,
  { scanBytesMax, left }: { readonly scanBytesMax: number; readonly left?: string | undefined },
): Promise<string | undefined> {
  const headerBytes = luks1OverheadBytes(encryption.cipher);
  const opened = await openKnown(path, backingIdentity, constants.O_RDWR).catch((error: unknown) => {
    if (isShimError(error)) return undefined;
    throw error;
  });
  if (opened === undefined) return 'something else has its name now';
  await using handle = opened;
  const found = await handle.stat();
  if (!found.isFile()) return await emptyDevice(handle, encryption, left);
  const { sourceBytes, bornMs = found.birthtimeMs } = creating;
  if (bornMs !== found.birthtimeMs) return 'another file has its name and its inode now';
  if (await isLocked(found.ino)) return 'another process holds a lock on it';
  if (!(await beginsAsImage(handle, encryption))) return 'it begins with something else';
  if (found.size !== sourceBytes && found.size !== headerBytes + sizeBytes) {
    return `it has ${found.size} bytes, neither what it had before nor what it was to have`;
  }
  if (found.size > scanBytesMax) return 'it is too long to be looked through (empty_scan_bytes_max)';
  const at = await firstData({ handle, sizeBytes: found.size }, headerBytes);
  if (at !== undefined) return `there is data behind its header, near byte ${at}`;
  await handle.truncate(0);
  await handle.truncate(sourceBytes);
  await handle.sync();
  return undefined;
}

/** Of a device QEMU writes the header alone; what lies behind it is as it was. */
async function emptyDevice(
  handle: FileHandle,
  encryption: HostLuksSpec,
  left: string | undefined,
): Promise<string | undefined> {
  const bytes = await readFirst(handle, luks1OverheadBytes(encryption.cipher));
  if (isZero(bytes)) return undefined;
  if (left === undefined) {
    return 'QEMU no longer had it open when it was looked at, so that what is on it may be of somebody else';
  }
  if (!(await beginsAsImage(handle, encryption))) return 'it begins with something else';
  if (digest(bytes) !== left) return 'somebody has written to it since QEMU let go of it';
  await writeZeroes(handle, bytes.length);
  await handle.sync();
  return undefined;
}

/**
 * QEMU, whoever's, locks what it has open (OFD locks, proc(5)). Inodes of other file systems may have the same number:
 * then it is left.
 */
async function isLocked(inode: number): Promise<boolean> {
  const locks = await readFile('/proc/locks', 'utf8');
  return locks.split('\n').some((line) => line.split(/\s+/).some((field) => field.endsWith(`:${inode}`)));
}

/**
 * An image that was begun has the header that QEMU was asked for, with one key, or nothing yet where it will be. LUKS
 * of another version, cipher or layout is somebody else's.
 */
async function beginsAsImage(handle: FileHandle, { cipher, hash }: HostLuksSpec): Promise<boolean> {
  const start = await readFirst(handle, KEY_MATERIAL_OFFSET_BYTES);
  if (isZero(start)) return true;
  const look = lookForLuks(start);
  if (look.kind !== 'luks1' || !isZero(start.subarray(LUKS1_HEADER_BYTES))) return false;
  const { header } = look;
  return (
    header.cipher === `${cipher.split('-')[0] ?? ''}-xts-plain64` &&
    header.hash === hash &&
    header.payloadOffsetBytes === luks1OverheadBytes(cipher) &&
    header.slots.every((used, slot) => used === (slot === 0))
  );
}

/** The first bytes; zeroes where it ends before. */
async function readFirst(handle: FileHandle, bytes: number): Promise<Buffer> {
  const start = Buffer.alloc(bytes);
  await handle.read(start, 0, bytes, 0);
  return start;
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function writeZeroes(handle: FileHandle, bytes: number): Promise<void> {
  const { bytesWritten } = await handle.write(Buffer.alloc(bytes), 0, bytes, 0);
  if (bytesWritten !== bytes) throw new Error(`${bytesWritten} of ${bytes} bytes were written`);
}
