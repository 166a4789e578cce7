import type { Stats } from 'node:fs';
import { constants, open, readFile, realpath, stat, statfs, type FileHandle } from 'node:fs/promises';
import { dirname, sep } from 'node:path';
import { z } from 'zod';
import { ShimError, errnoOf, invalidArgument, messageOf } from '../../base/errors.ts';
import type { Config } from '../../config.ts';
import type { BlockdevProtocol } from '../../qmp/block-options.ts';
import { inspectLuks, lookAtBytes, type LuksSource } from '../luks-image.ts';
import { checkHostPath, isDirect, type AioMode, type DiskSpec } from '../model/disk.ts';
import type { Emptiness } from '../model/emptiness.ts';
import type { QemuNames } from '../model/names.ts';
import { commonNode } from '../model/nodes.ts';
import type { Inspection, IntendedUse, SourceCommand } from './module.ts';

/** What sources that have a path on the host have in common. */

const SECTOR_BYTES = 512;
/** stat(2) counts in these, whatever the file system's blocks are. */
const STAT_BLOCK_BYTES = 512;
/** The field of the API that names the path. */
const FIELD = 'spec.source.path';

export const pathSchema = z.object({ path: z.string() });
const messageSchema = z.object({ path: z.string().nullish() });

/** A source that is named by a path. */
export interface LocalSource {
  readonly path: string;
}

/** The path in a message of the API; empty when there is none. */
export function pathOf(message: object): string {
  return messageSchema.safeParse(message).data?.path ?? '';
}

/** How the command names a source that has a path. */
export function localCommand(option: string, description: string): SourceCommand {
  return {
    option,
    value: '<path>',
    description,
    fromText: (path, absolute) => ({ path: absolute(path) }),
    absolute: (message, absolute) => {
      const path = pathOf(message);
      return path === '' ? message : { ...message, path: absolute(path) };
    },
    show: (message) => `${option} ${pathOf(message)}`,
  };
}

/** @throws ShimError INVALID_ARGUMENT / INVALID_PATH */
export function checkSourcePath<S extends LocalSource>(source: S): S {
  checkHostPath(FIELD, source.path);
  return source;
}

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
 * Resolves, opens and looks at a local source.
 * @param wanted what it has to be
 * @param look gives the bytes that lie in it, and what it has seen of them; without that they are read
 */
export async function inspectLocal<S extends LocalSource>(
  source: S,
  use: IntendedUse,
  config: Config,
  wanted: Wanted,
  look: (at: LookedAt) => Promise<{ readonly sizeBytes: number; readonly emptiness?: Emptiness }>,
): Promise<Inspection<S>> {
  const { path, found } = await findAllowed(FIELD, source.path, wanted, config);
  await using handle = await openAs(FIELD, path, use.readOnly);
  const { sizeBytes, emptiness } = await look({ path, found, handle });
  const allocatedBytes = found.isFile() ? found.blocks * STAT_BLOCK_BYTES : undefined;
  const luks = { path, handle, sizeBytes, allocatedBytes };
  const endsInSector = !found.isFile() || found.size % SECTOR_BYTES === 0;
  const resolved = { ...source, path };
  return { resolved, identity: fileIdentity(found), endsInSector, ...(await guestSize(luks, use, config, emptiness)) };
}

/**
 * Resolves a path, holds it against the allowed roots, and sees what is there.
 * @throws ShimError as resolveAllowed; INVALID_ARGUMENT / WRONG_FILE_TYPE
 */
export async function findAllowed(
  field: string,
  named: string,
  wanted: Wanted,
  config: Config,
): Promise<{ readonly path: string; readonly found: Stats }> {
  const path = await resolveAllowed(field, named, config.allowed_roots);
  const found = await statOf(field, path);
  if (!wanted.is(found))
    throw invalidArgument(field, path, `is ${kindOf(found)}, not ${wanted.name}`, 'WRONG_FILE_TYPE');
  return { path, found };
}

async function guestSize(
  source: LuksSource,
  use: IntendedUse,
  config: Config,
  known: Emptiness | undefined,
): Promise<Pick<Inspection<unknown>, 'sizeBytes' | 'blank' | 'emptiness'>> {
  const { hostLuks, logicalBlockSize, createsIfEmpty } = use;
  const scanBytesMax = config.empty_scan_bytes_max;
  if (hostLuks === undefined) {
    const sizeBytes = checkSize(FIELD, source.path, source.sizeBytes, logicalBlockSize);
    return { sizeBytes, emptiness: createsIfEmpty ? (known ?? (await lookAtBytes(source, scanBytesMax))) : 'look' };
  }
  const found = await inspectLuks(source, hostLuks, { scanBytesMax, formats: createsIfEmpty });
  return { ...found, sizeBytes: checkSize(FIELD, source.path, found.sizeBytes, logicalBlockSize) };
}

/** A file's or a device's protocol node. */
export function localProtocol(
  driver: 'file' | 'host_device',
  path: string,
  names: QemuNames,
  disk: DiskSpec,
  aio: AioMode | undefined,
): BlockdevProtocol {
  return {
    ...commonNode(disk),
    driver,
    'node-name': names.protocol,
    filename: path,
    aio: aio ?? 'threads',
    locking: 'on',
  };
}

/** `auto` falls back; a mode that the caller chose does not. */
export function localAioModes(disk: DiskSpec, endsInSector: boolean): readonly AioMode[] {
  const wanted: readonly AioMode[] = disk.aio === 'auto' ? ['io_uring', 'native', 'threads'] : [disk.aio];
  return wanted.filter((mode) => {
    if (mode === 'io_uring') return endsInSector;
    return mode !== 'native' || disk.aio !== 'auto' || isDirect(disk.cache);
  });
}

/**
 * A file that was deleted under the VM has no identity that another volume could ask for.
 * @throws the system error when it cannot be looked at: then it is not known to be free
 */
export async function identifyLocal({ path }: LocalSource): Promise<string> {
  const found = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return undefined;
  });
  return found === undefined ? `gone:${path}` : fileIdentity(found);
}

/** Bytes that the file system of a file has left. */
export async function freeBytesAt({ path }: LocalSource): Promise<number> {
  const { bavail, bsize } = await statfs(dirname(path));
  return bavail * bsize;
}

/**
 * Resolves symbolic links and holds the result against the allowed roots.
 * @throws ShimError FAILED_PRECONDITION / SOURCE_NOT_FOUND, PERMISSION_DENIED / OUTSIDE_ALLOWED_ROOTS
 */
export async function resolveAllowed(field: string, path: string, allowedRoots: readonly string[]): Promise<string> {
  checkHostPath(field, path);
  const [resolved, ...roots] = await Promise.all([
    realpath(path).catch((error: unknown) => {
      throw unreachable(field, path, error);
    }),
    ...allowedRoots.map((root) => realpath(root).catch(() => root)),
  ]);
  for (const base of roots) {
    if (resolved === base || resolved.startsWith(base.endsWith(sep) ? base : base + sep)) return resolved;
  }
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

async function openAs(field: string, path: string, readOnly: boolean): Promise<FileHandle> {
  try {
    // O_NONBLOCK: opening must never hang, whatever the path has become since it was looked at.
    return await open(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
  } catch (error) {
    throw unreachable(field, path, error);
  }
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

/**
 * The size of a disk that the guest can have.
 * @param described the source, as its field names it
 * @throws ShimError INVALID_ARGUMENT / INVALID_SIZE
 */
export function checkSize(field: string, described: string, sizeBytes: number, blockSize: number): number {
  if (sizeBytes === 0) throw invalidArgument(field, described, 'is empty (0 bytes)', 'INVALID_SIZE');
  if (!Number.isSafeInteger(sizeBytes)) {
    throw invalidArgument(field, described, `has ${sizeBytes} bytes, more than can be counted`, 'INVALID_SIZE');
  }
  if (sizeBytes % blockSize !== 0) {
    throw invalidArgument(
      field,
      described,
      `has ${sizeBytes} bytes, not a multiple of ${blockSize}, the size of its blocks`,
      'INVALID_SIZE',
    );
  }
  return sizeBytes;
}

/** The same for every name of the same file or device. */
export function fileIdentity(found: Stats): string {
  if (!found.isBlockDevice()) return `file:${found.dev}:${found.ino}`;
  const { major, minor } = deviceNumbers(found.rdev);
  return `block:${major}:${minor}`;
}

/** Bytes of a block device, by its stat. */
export async function blockDeviceSize({ rdev }: Stats): Promise<number> {
  const { major, minor } = deviceNumbers(rdev);
  const sectors = await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8');
  return Number(sectors.trim()) * SECTOR_BYTES;
}

/** Linux's encoding of dev_t (makedev(3)). */
function deviceNumbers(rdev: number): { major: number; minor: number } {
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
