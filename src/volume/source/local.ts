import type { Stats } from 'node:fs';
import { readFile, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { errnoOf, invalidArgument } from '../../base/errors.ts';
import type { Config } from '../../config.ts';
import type { Keep } from '../../files/serve.ts';
import type { BlockdevProtocol } from '../../qmp/block-options.ts';
import { inspectLuks, lookAtBytes, type LuksSource } from '../luks-image.ts';
import { checkHostPath, isDirect, type AioMode, type DiskSpec } from '../model/disk.ts';
import type { Emptiness } from '../model/emptiness.ts';
import type { QemuNames } from '../model/names.ts';
import { commonNode } from '../model/nodes.ts';
import type { Inspection, IntendedUse, SourceCommand } from './module.ts';
import { deviceNumbers, fileIdentity, openAllowed, openedForQemu, type LookedAt, type Wanted } from './open-file.ts';

/**
 * What sources that have a path on the host have in common. What touches a file runs in a helper (jobs.ts), and only
 * there: a file system may hang.
 */

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

/** What is to be found at the path, and for what. */
export interface Inspecting {
  readonly use: IntendedUse;
  readonly config: Config;
  readonly wanted: Wanted;
  /** Takes what was looked at, for QEMU. */
  readonly keep: Keep | undefined;
}

/**
 * Resolves, opens and looks at a local source: all of it at what was opened once, whatever its path leads to meanwhile.
 * @param look gives the bytes that lie in it, and what it has seen of them; without that they are read
 */
export async function inspectLocal<S extends LocalSource>(
  source: S,
  { use, config, wanted, keep }: Inspecting,
  look: (at: LookedAt) => Promise<{ readonly sizeBytes: number; readonly emptiness?: Emptiness }>,
): Promise<Inspection<S>> {
  const at = await openAllowed(FIELD, source.path, wanted, config, use);
  await using handle = at.handle;
  const { path, found } = at;
  const { sizeBytes, emptiness } = await look(at);
  const allocatedBytes = found.isFile() ? found.blocks * STAT_BLOCK_BYTES : undefined;
  const luks = { path, handle, sizeBytes, allocatedBytes };
  const endsInSector = !found.isFile() || found.size % SECTOR_BYTES === 0;
  const seen = await guestSize(luks, use, config, emptiness);
  if (keep !== undefined) keep(await openedForQemu(handle, use));
  return { resolved: { ...source, path }, identity: fileIdentity(found), endsInSector, ...seen };
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

/** A file's or a device's protocol node. QEMU opens the descriptor that it was given (volume/add.ts), and no path. */
export function localProtocol(
  driver: 'file' | 'host_device',
  names: QemuNames,
  disk: DiskSpec,
  aio: AioMode | undefined,
): BlockdevProtocol {
  return {
    ...commonNode(disk),
    driver,
    'node-name': names.protocol,
    filename: `/dev/fdset/${names.fdset.number}`,
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

/** Bytes of a block device, by its stat. */
export async function blockDeviceSize({ rdev }: Stats): Promise<number> {
  const { major, minor } = deviceNumbers(rdev);
  const sectors = await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8');
  return Number(sectors.trim()) * SECTOR_BYTES;
}
