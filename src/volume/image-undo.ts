import { open, readFile, type FileHandle } from 'node:fs/promises';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { lookForLuks, luks1OverheadBytes } from './model/luks1.ts';
import { fileIdentity } from './source/local.ts';
import { firstData } from './luks-image.ts';
import type { ImageCreation } from './model/encryption.ts';
import type { VolumeSpec } from './spec.ts';

/**
 * The undo of making a `host_luks` image. What was seen to be empty before is made empty again, by whoever comes to it:
 * the attach that failed, the end of the VM, or a later daemon that finds in the journal that an image was begun.
 * INVARIANT: `volume.creating` is on disk before QEMU writes a byte of the image, and off it before a guest gets the
 * disk.
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
  return { sourceBytes: found.isFile() ? found.size : 0 };
}

/**
 * Makes the source empty again if an image was begun in it and not finished. To be called while the claim on the source
 * is still held, and once QEMU does not have it any more. What cannot be told for certain to be that image, and nothing
 * but it, is left as it is, and named in the log. Never throws. Afterwards nothing of it is begun any more.
 */
export async function undoCreation(
  volume: CreatingVolume,
  options: { readonly scanBytesMax: number; readonly log: Logger },
): Promise<void> {
  const { creating } = volume;
  if (creating === undefined) return;
  const log = options.log.child({ volumeId: volume.id, path: volume.identity.resolvedPath });
  try {
    const problem = await emptyAgain(volume, creating, options.scanBytesMax);
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
  scanBytesMax: number,
): Promise<string | undefined> {
  const { encryption } = identity.spec;
  const { resolvedPath, backingIdentity } = identity;
  if (encryption?.kind !== 'host-luks') return 'it is no image';
  const headerBytes = luks1OverheadBytes(encryption.cipher);
  await using handle = await open(resolvedPath, 'r+');
  const found = await handle.stat();
  if (fileIdentity(found) !== backingIdentity) return 'something else has its name now';
  if (await isLocked(found.ino)) return 'another process holds a lock on it';
  if (!(await beginsAsImage(handle))) return 'it begins with something else';
  if (found.isFile()) {
    if (found.size !== creating.sourceBytes && found.size !== headerBytes + sizeBytes) {
      return `it has ${found.size} bytes, neither what it had before nor what it was to have`;
    }
    if (found.size > scanBytesMax) return 'it is too long to be looked through (empty_scan_bytes_max)';
    const at = await firstData({ handle, sizeBytes: found.size }, headerBytes);
    if (at !== undefined) return `there is data behind its header, near byte ${at}`;
    await handle.truncate(0);
    await handle.truncate(creating.sourceBytes);
  } else await writeZeroes(handle, headerBytes);
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

/** An image that was begun has a header, or nothing yet where it will be. */
async function beginsAsImage(handle: FileHandle): Promise<boolean> {
  const start = Buffer.alloc(KEY_MATERIAL_OFFSET_BYTES);
  await handle.read(start, 0, start.length, 0);
  return lookForLuks(start).kind !== 'none' || start.every((byte) => byte === 0);
}

/** Of a device QEMU writes the header alone; what lies behind it is as it was. */
async function writeZeroes(handle: FileHandle, bytes: number): Promise<void> {
  const { bytesWritten } = await handle.write(Buffer.alloc(bytes), 0, bytes, 0);
  if (bytesWritten !== bytes) throw new Error(`${bytesWritten} of ${bytes} bytes were written`);
}
