import { closeSync, fstatSync, type Stats } from 'node:fs';
import { constants, open, realpath, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, relative } from 'node:path';
import { ShimError, errnoOf, invalidArgument, messageOf } from '../../base/errors.ts';
import type { Config } from '../../config.ts';
import { PLACE_FLAGS, PLACE_OF_FILE, openBeneath } from '../../files/native.ts';
import { rootAbove } from '../../files/roots.ts';
import { checkHostPath } from '../model/disk.ts';

/**
 * Files that callers name, found and opened. All of it touches file systems that may hang, and runs in helpers
 * (volume/jobs.ts).
 */

/** What a path has to lead to. */
export interface Wanted {
  readonly is: (found: Stats) => boolean;
  /** For people, with its article. */
  readonly name: string;
}

/** What was opened to be looked at. */
export interface LookedAt {
  readonly path: string;
  readonly found: Stats;
  readonly handle: FileHandle;
}

/**
 * Resolves a path, holds it against the allowed roots, and sees what is there.
 * @throws ShimError as resolveAllowed; INVALID_ARGUMENT / WRONG_FILE_TYPE
 */
export async function findAllowed(
  field: string,
  named: string,
  wanted: Wanted,
  config: Pick<Config, 'allowed_roots'>,
): Promise<{ readonly path: string; readonly found: Stats }> {
  const path = await resolveAllowed(field, named, config.allowed_roots);
  const found = await statOf(field, path);
  refuseOtherKind(field, path, found, wanted);
  return { path, found };
}

function refuseOtherKind(field: string, path: string, found: Stats, wanted: Wanted): void {
  if (wanted.is(found)) return;
  throw invalidArgument(field, path, `is ${kindOf(found)}, not ${wanted.name}`, 'WRONG_FILE_TYPE');
}

/**
 * Resolves symbolic links and holds the result against the allowed roots.
 * @throws ShimError FAILED_PRECONDITION / SOURCE_NOT_FOUND, PERMISSION_DENIED / OUTSIDE_ALLOWED_ROOTS
 */
export async function resolveAllowed(field: string, path: string, allowedRoots: readonly string[]): Promise<string> {
  return (await resolveBelow(field, path, allowedRoots)).resolved;
}

/** The same, with the root below which it lies, resolved as well. */
async function resolveBelow(
  field: string,
  path: string,
  allowedRoots: readonly string[],
): Promise<{ readonly resolved: string; readonly root: string }> {
  checkHostPath(field, path);
  const resolved = await realpath(path).catch((error: unknown) => {
    throw unreachable(field, path, error);
  });
  const root = await rootAbove(resolved, path, allowedRoots);
  if (root !== undefined) return { resolved, root };
  throw new ShimError(
    'PERMISSION_DENIED',
    `${field} = ${JSON.stringify(path)}${resolved === path ? '' : ` (which is ${resolved})`} lies outside allowed_roots (${allowedRoots.join(', ')})`,
    { reason: 'OUTSIDE_ALLOWED_ROOTS', metadata: { field, value: path, resolved } },
  );
}

async function statOf(field: string, path: string): Promise<Stats> {
  try {
    return await stat(path);
  } catch (error) {
    throw unreachable(field, path, error);
  }
}

/**
 * Opens what a caller's path leads to, below an allowed root. The path is resolved first; what is then opened is found
 * from that root without following any symbolic link, so that nothing put in its place meanwhile leads out. What kind
 * of file it is, is seen before it is opened for reading or writing.
 * @throws ShimError as findAllowed; SOURCE_CHANGED, SOURCE_NOT_ACCESSIBLE, SOURCE_NOT_USABLE, OUT_OF_DESCRIPTORS
 */
export async function openAllowed(
  field: string,
  named: string,
  wanted: Wanted,
  config: Pick<Config, 'allowed_roots'>,
  { readOnly }: { readonly readOnly: boolean },
): Promise<LookedAt> {
  const { resolved: path, root } = await resolveBelow(field, named, config.allowed_roots);
  const [start, rest] = path === root ? [dirname(root), basename(root)] : [root, relative(root, path)];
  let place: number;
  try {
    await using directory = await open(start, PLACE_FLAGS);
    place = openBeneath(directory.fd, rest);
  } catch (error) {
    throw ['ELOOP', 'EXDEV', 'ENOENT', 'ENOTDIR', 'EAGAIN'].includes(errnoOf(error) ?? '')
      ? changed(field, path, error)
      : unreachable(field, path, error);
  }
  try {
    const found = fstatSync(place);
    refuseOtherKind(field, path, found, wanted);
    // The same file again, for use. O_NONBLOCK: opening must never hang.
    const flags = (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK;
    return { path, found, handle: await openAgain(place, flags) };
  } catch (error) {
    throw error instanceof ShimError ? error : unreachable(field, path, error);
  } finally {
    closeSync(place);
  }
}

/** Opens what a descriptor of this process stands for once more, whatever its path is by now. */
async function openAgain(descriptor: number, flags: number): Promise<FileHandle> {
  return await open(`/proc/self/fd/${descriptor}`, flags);
}

/**
 * An open file of QEMU's own: newer ones want it to be as they would open it, past the page cache too. Where the file
 * system does not do that, QEMU is to say so.
 */
export async function openedForQemu(
  { fd }: FileHandle,
  { readOnly, direct }: { readonly readOnly: boolean; readonly direct: boolean },
): Promise<FileHandle> {
  const flags = readOnly ? constants.O_RDONLY : constants.O_RDWR;
  if (!direct) return await openAgain(fd, flags);
  return await openAgain(fd, flags | constants.O_DIRECT).catch((error: unknown) => {
    if (errnoOf(error) === 'EINVAL') return openAgain(fd, flags);
    throw error;
  });
}

/**
 * Opens a file that was looked at before, by the path that it had then: only if it is still that file. Anything else at
 * that path is seen without being opened.
 * @param identity as fileIdentity gave it
 * @param flags of open(2)
 * @throws ShimError FAILED_PRECONDITION / SOURCE_CHANGED; the system error
 */
export async function openKnown(path: string, identity: string, flags: number): Promise<FileHandle> {
  const place = await open(path, PLACE_OF_FILE);
  try {
    const found = await place.stat();
    if (fileIdentity(found) !== identity) throw changed('path', path);
    return await openAgain(place.fd, flags);
  } finally {
    await place.close();
  }
}

/** A source that is not what it was when it was looked at. */
export function changed(field: string, path: string, cause?: unknown): ShimError {
  return new ShimError('FAILED_PRECONDITION', `${field} = ${JSON.stringify(path)} was changed while it was looked at`, {
    reason: 'SOURCE_CHANGED',
    metadata: { field, value: path },
    cause,
  });
}

function unreachable(field: string, path: string, error: unknown): ShimError {
  const metadata = { field, value: path };
  const at = `${field} = ${JSON.stringify(path)}`;
  switch (errnoOf(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new ShimError('FAILED_PRECONDITION', `${at} does not exist (or is a dangling symbolic link)`, {
        reason: 'SOURCE_NOT_FOUND',
        metadata,
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new ShimError('PERMISSION_DENIED', `${at} may not be opened by the daemon: ${messageOf(error)}`, {
        reason: 'SOURCE_NOT_ACCESSIBLE',
        metadata,
        cause: error,
      });
    case 'EMFILE':
    case 'ENFILE':
      return new ShimError('RESOURCE_EXHAUSTED', `${at} cannot be opened: no file descriptors are left`, {
        reason: 'OUT_OF_DESCRIPTORS',
        metadata,
        cause: error,
      });
    case 'ELOOP':
      return invalidArgument(field, path, 'has too many symbolic links', 'INVALID_PATH');
    default:
      return new ShimError('FAILED_PRECONDITION', `${at} cannot be opened: ${messageOf(error)}`, {
        reason: 'SOURCE_NOT_USABLE',
        metadata,
        cause: error,
      });
  }
}

/** The same for every name of the same file or device. */
export function fileIdentity(found: Stats): string {
  if (!found.isBlockDevice()) return `file:${found.dev}:${found.ino}`;
  const { major, minor } = deviceNumbers(found.rdev);
  return `block:${major}:${minor}`;
}

/** Linux's encoding of dev_t (makedev(3)). */
export function deviceNumbers(rdev: number): { major: number; minor: number } {
  const value = BigInt(rdev);
  return {
    major: Number(((value >> 8n) & 0xfffn) | ((value >> 32n) & 0xfffff000n)),
    minor: Number((value & 0xffn) | ((value >> 12n) & 0xffffff00n)),
  };
}

function kindOf(found: Stats): string {
  if (found.isDirectory()) return 'a directory';
  if (found.isFIFO()) return 'a FIFO';
  if (found.isSocket()) return 'a socket';
  if (found.isCharacterDevice()) return 'a character device';
  if (found.isBlockDevice()) return 'a block device';
  return 'a regular file';
}
