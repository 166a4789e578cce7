import type { Stats } from 'node:fs';
import { constants, open, readFile, realpath, stat, type FileHandle } from 'node:fs/promises';
import { sep } from 'node:path';
import { ShimError, errnoOf, invalidArgument, messageOf } from '../base/errors.ts';
import { checkHostPath, type VolumeSpec } from './model/spec.ts';
import { inspectLuks, type LuksSource } from './luks-image.ts';

/** What lies behind a volume on the host, as it was when it was looked at. */
export interface Backing {
  /** The path with every symbolic link resolved: what QEMU is given. */
  readonly path: string;
  /** The same for every name of the same file or device: "file:DEV:INODE" or "block:MAJOR:MINOR". */
  readonly identity: string;
  /** Bytes that the guest will see. */
  readonly sizeBytes: number;
  /** For host_luks: it is empty, and an image has to be made in it first. */
  readonly blank?: boolean;
  /** For host_luks: nobody ever wrote through the encryption. */
  readonly unwritten?: boolean;
}

/** What an inspection needs of the configuration. */
export interface InspectionConfig {
  readonly allowed_roots: readonly string[];
  readonly empty_scan_bytes_max: number;
}

const QCOW2_MAGIC = 0x514649fb;
const QCOW2_HEADER_BYTES = 80;
const QCOW2_INCOMPATIBLE_EXTERNAL_DATA = 1n << 2n;
const SECTOR_BYTES = 512;
/** stat(2) counts in these, whatever the file system's blocks are. */
const STAT_BLOCK_BYTES = 512;

/**
 * Looks at a volume's source and refuses what cannot be attached safely. Changes nothing.
 * @throws ShimError INVALID_ARGUMENT (wrong kind of file, wrong size), NOT_FOUND-like FAILED_PRECONDITION / SOURCE_NOT_FOUND,
 *   PERMISSION_DENIED (outside allowed_roots, unreadable)
 */
export async function inspectBacking(spec: VolumeSpec, config: InspectionConfig): Promise<Backing> {
  const field = 'spec.source.path';
  const path = await resolveAllowed(field, spec.source.path, config.allowed_roots);
  const found = await statOf(field, path);
  const identity = fileIdentity(found);
  if (spec.source.kind === 'block-device') {
    if (!found.isBlockDevice())
      throw invalidArgument(field, path, `is ${kindOf(found)}, not a block device`, 'WRONG_FILE_TYPE');
    await using handle = await openAs(field, path, spec.readOnly);
    const { major, minor } = deviceNumbers(found.rdev);
    const sizeBytes = await blockDeviceSize(major, minor);
    const source = { path, handle, sizeBytes, allocatedBytes: undefined };
    return { path, identity, ...(await guestSize(source, spec, config)) };
  }
  if (!found.isFile()) throw invalidArgument(field, path, `is ${kindOf(found)}, not a regular file`, 'WRONG_FILE_TYPE');
  await using handle = await openAs(field, path, spec.readOnly);
  const sizeBytes = spec.source.kind === 'qcow2-file' ? await qcow2Size(path, handle) : found.size;
  const source = { path, handle, sizeBytes, allocatedBytes: found.blocks * STAT_BLOCK_BYTES };
  return { path, identity, ...(await guestSize(source, spec, config)) };
}

async function guestSize(
  source: LuksSource,
  spec: VolumeSpec,
  config: InspectionConfig,
): Promise<Pick<Backing, 'sizeBytes' | 'blank' | 'unwritten'>> {
  const { encryption, logicalBlockSize } = spec;
  if (encryption?.kind !== 'host-luks') {
    return { sizeBytes: checkSize(source.path, source.sizeBytes, logicalBlockSize) };
  }
  const formats = spec.mount?.format === 'if_empty';
  const found = await inspectLuks(source, encryption, { scanBytesMax: config.empty_scan_bytes_max, formats });
  return { ...found, sizeBytes: checkSize(source.path, found.sizeBytes, logicalBlockSize) };
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

function checkSize(path: string, sizeBytes: number, blockSize: number): number {
  if (sizeBytes === 0) throw invalidArgument('spec.source.path', path, 'is empty (0 bytes)', 'INVALID_SIZE');
  if (!Number.isSafeInteger(sizeBytes)) {
    throw invalidArgument('spec.source.path', path, `has ${sizeBytes} bytes, more than can be counted`, 'INVALID_SIZE');
  }
  if (sizeBytes % blockSize !== 0) {
    throw invalidArgument(
      'spec.source.path',
      path,
      `has ${sizeBytes} bytes, not a multiple of the logical block size ${blockSize}`,
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

/** Layout: docs/interop/qcow2.txt in QEMU's sources. */
async function qcow2Size(path: string, handle: FileHandle): Promise<number> {
  const header = Buffer.alloc(QCOW2_HEADER_BYTES);
  const { bytesRead } = await handle.read(header, 0, QCOW2_HEADER_BYTES, 0);
  if (bytesRead < 72 || header.readUInt32BE(0) !== QCOW2_MAGIC) {
    throw invalidArgument('spec.source.path', path, 'is not a qcow2 image', 'NOT_QCOW2');
  }
  if (header.readBigUInt64BE(8) !== 0n) {
    throw invalidArgument('spec.source.path', path, 'has a backing file, which is not allowed', 'QCOW2_BACKING_FILE');
  }
  const version = header.readUInt32BE(4);
  if (version >= 3 && (header.readBigUInt64BE(72) & QCOW2_INCOMPATIBLE_EXTERNAL_DATA) !== 0n) {
    throw invalidArgument(
      'spec.source.path',
      path,
      'has an external data file, which is not allowed',
      'QCOW2_DATA_FILE',
    );
  }
  if (header.readUInt32BE(32) !== 0) {
    throw invalidArgument(
      'spec.source.path',
      path,
      'is encrypted inside qcow2, which is not supported',
      'QCOW2_ENCRYPTED',
    );
  }
  return Number(header.readBigUInt64BE(24));
}

async function blockDeviceSize(major: number, minor: number): Promise<number> {
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

/**
 * Which volume of which sandbox holds which file, over the whole daemon. One writer excludes everybody else; readers
 * share. QEMU's own file locks are the second line, against other processes.
 */
export class BackingClaims {
  readonly #claims = new Map<string, Map<string, { readonly writable: boolean }>>();

  /**
   * @param owner any text that is unique to the holder, fit for an error message
   * @throws ShimError FAILED_PRECONDITION / BACKING_IN_USE that names the other holder
   */
  claim(backing: Backing, owner: string, writable: boolean): void {
    this.check(backing, owner, writable);
    const holders = this.#claims.get(backing.identity) ?? new Map<string, { readonly writable: boolean }>();
    holders.set(owner, { writable });
    this.#claims.set(backing.identity, holders);
  }

  /** Whether `claim` would succeed; throws as it does. */
  check(backing: Backing, owner: string, writable: boolean): void {
    for (const [holder, claim] of this.#claims.get(backing.identity) ?? []) {
      if (holder === owner || !(claim.writable || writable)) continue;
      throw new ShimError('FAILED_PRECONDITION', `${backing.path} is in use by ${holder}`, {
        reason: 'BACKING_IN_USE',
        metadata: { path: backing.path, holder },
      });
    }
  }

  release(identity: string, owner: string): void {
    const holders = this.#claims.get(identity);
    holders?.delete(owner);
    if (holders?.size === 0) this.#claims.delete(identity);
  }
}
