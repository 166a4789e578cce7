import { createHash } from 'node:crypto';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { listed } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import { LUKS1_HEADER_BYTES, lookForLuks, luks1OverheadBytes } from './model/luks1.ts';
import type { QemuNames } from './model/names.ts';
import { fileIdentity } from './source/local.ts';
import { firstData } from './luks-image.ts';
import type { HostLuksSpec, ImageCreation } from './model/encryption.ts';
import type { VolumeSpec } from './spec.ts';

/**
 * The undo of making a `host_luks` image. What was seen to be empty before is made empty again, by whoever comes to it:
 * the attach that failed, the end of the VM, or a later daemon that finds in the journal that an image was begun.
 * INVARIANT: `volume.creating` is on disk before QEMU writes a byte of the image, and off it before a guest gets the
 * disk.
 *
 * Whose bytes they are has to be seen. A file is known by its inode and its birth, and by having nothing behind the
 * header. A block device's number goes to another device, and no lock tells who has it open: of a device only that is
 * made empty which QEMU still had open when it was read, with the image made, and which has not changed since.
 */

/** Before it QEMU puts the header alone. */
const KEY_MATERIAL_OFFSET_BYTES = 4096;

/** What the undo needs to know of a volume. */
export interface CreatingVolume {
  readonly id: string;
  readonly identity: {
    readonly spec: Pick<VolumeSpec, 'encryption'>;
    readonly resolvedPath: string;
    readonly backingIdentity: string;
  };
  readonly sizeBytes: number;
  readonly creating: ImageCreation | undefined;
}

/** What there is before an image is made of it; to be written to the journal first. */
export async function beforeCreation(resolvedPath: string): Promise<ImageCreation> {
  await using handle = await open(resolvedPath, 'r');
  const found = await handle.stat();
  return found.isFile() ? { sourceBytes: found.size, bornMs: found.birthtimeMs } : { sourceBytes: 0 };
}

/**
 * What QEMU has left at the beginning of a block device, read while QEMU has it open: nobody can have put another
 * device in its place. To be kept in memory alone: for a later daemon it would say nothing.
 * @returns a digest; undefined when QEMU still works on the image, or has let go of the device; and for a file
 * @throws what the connection throws
 */
export async function leftByQemu(
  qmp: Pick<QmpClient, 'run'>,
  { identity, creating, names }: CreatingVolume & { readonly names: Pick<QemuNames, 'job' | 'protocol'> },
): Promise<string | undefined> {
  const { encryption } = identity.spec;
  if (creating === undefined || encryption?.kind !== 'host-luks') return undefined;
  const job = (await qmp.run('query-jobs')).find(({ id }) => id === names.job);
  if (job !== undefined && job.status !== 'concluded') return undefined;
  if (!(await listed(qmp, 'node')).has(names.protocol)) return undefined;
  try {
    await using handle = await open(identity.resolvedPath, 'r');
    const found = await handle.stat();
    if (!found.isBlockDevice() || fileIdentity(found) !== identity.backingIdentity) return undefined;
    return digest(await readFirst(handle, luks1OverheadBytes(encryption.cipher)));
  } catch {
    // What cannot be read is not known, and is left as it is.
    return undefined;
  }
}

/**
 * Makes the source empty again if an image was begun in it and not finished. To be called while the claim on the source
 * is still held, and once QEMU does not have it any more. What cannot be told for certain to be that image, and nothing
 * but it, is left as it is, and named in the log. Never throws. Afterwards nothing of it is begun any more.
 * @param options.left what leftByQemu has seen; without it no block device is written to
 */
export async function undoCreation(
  volume: CreatingVolume,
  options: { readonly scanBytesMax: number; readonly left?: string | undefined; readonly log: Logger },
): Promise<void> {
  const { creating } = volume;
  if (creating === undefined) return;
  const log = options.log.child({ volumeId: volume.id, path: volume.identity.resolvedPath });
  try {
    const problem = await emptyAgain(volume, creating, options);
    if (problem === undefined) log.info({}, 'image that was not finished is empty again');
    else log.warn({ problem }, 'image that was not finished left as it is');
  } catch (error) {
    log.warn({ problem: messageOf(error) }, 'image that was not finished left as it is');
  }
}

/** @returns why it was left as it is */
async function emptyAgain(
  { identity, sizeBytes }: CreatingVolume,
  creating: ImageCreation,
  { scanBytesMax, left }: { readonly scanBytesMax: number; readonly left?: string | undefined },
): Promise<string | undefined> {
  const { encryption } = identity.spec;
  const { resolvedPath, backingIdentity } = identity;
  if (encryption?.kind !== 'host-luks') return 'it is no image';
  const headerBytes = luks1OverheadBytes(encryption.cipher);
  await using handle = await open(resolvedPath, 'r+');
  const found = await handle.stat();
  if (fileIdentity(found) !== backingIdentity) return 'something else has its name now';
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
