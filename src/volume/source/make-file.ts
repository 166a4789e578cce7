import { constants } from 'node:fs';
import { lstat, open, unlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ShimError, errnoOf, invalidArgument, messageOf } from '../../base/errors.ts';
import type { Config } from '../../config.ts';
import { checkHostPath } from '../model/disk.ts';
import { fileIdentity, openAllowed, resolveAllowed } from './open-file.ts';

/**
 * Files that are made where a caller wants them, and are taken away again. All of it touches file systems that may
 * hang, and runs in helpers (volume/jobs.ts).
 */

const MODE = 0o600;
/** A file's birth is told by a clock that is a tick or two behind. */
const CLOCK_TICK_MS = 50;
/** What was made has no more than its own tables. */
const MADE_BYTES_MAX = 1024 * 1024;
const STAT_BLOCK_BYTES = 512;

/** Where a file would be made: its directory is there, and lies below an allowed root. @throws as resolveAllowed */
export async function placeForFile(
  field: string,
  named: string,
  config: Pick<Config, 'allowed_roots'>,
): Promise<string> {
  checkHostPath(field, named);
  return join(await resolveAllowed(field, dirname(named), config.allowed_roots), basename(named));
}

/**
 * Makes a file that is not there yet, and gives it its bytes.
 * @param path as placeForFile gave it
 * @returns its identity
 * @throws ShimError FAILED_PRECONDITION / SOURCE_CHANGED when something is there by now, SOURCE_NOT_USABLE when it
 *   cannot be made; as openAllowed does for the directory
 */
export async function makeFile(
  field: string,
  path: string,
  config: Pick<Config, 'allowed_roots'>,
  fill: (handle: FileHandle) => Promise<void>,
): Promise<string> {
  const wanted = { is: (found: { isDirectory(): boolean }) => found.isDirectory(), name: 'a directory' };
  const at = await openAllowed(field, dirname(path), wanted, config, { readOnly: true });
  await using directory = at.handle;
  if (join(at.path, basename(path)) !== path) throw notMade(field, path, 'its directory was changed meanwhile');
  // Below the directory that was looked at, and nothing else: a link that lies there already is not followed.
  const place = `/proc/self/fd/${directory.fd}/${basename(path)}`;
  try {
    await using file = await open(place, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, MODE);
    try {
      await fill(file);
      await file.sync();
      await directory.sync();
      return fileIdentity(await file.stat());
    } catch (error) {
      await unlink(place);
      throw error;
    }
  } catch (error) {
    throw notMade(field, path, messageOf(error), error);
  }
}

function notMade(field: string, path: string, why: string, cause?: unknown): ShimError {
  if (errnoOf(cause) === 'ENAMETOOLONG') return invalidArgument(field, path, 'is too long a name', 'INVALID_PATH');
  return new ShimError('FAILED_PRECONDITION', `${field} = ${JSON.stringify(path)} cannot be made: ${why}`, {
    reason: errnoOf(cause) === 'EEXIST' ? 'SOURCE_CHANGED' : 'SOURCE_NOT_USABLE',
    metadata: { field, value: path },
    cause,
  });
}

/** What is known of a file that was made, or was to be. */
export interface MadeFile {
  /** Empty: its making was not seen to have ended. */
  readonly identity: string;
  /** Wall clock; it was not there before. */
  readonly madeAtMs: number;
}

/**
 * Removes a file that was made, if it is that file; one whose making was not seen only if it was born since, and
 * nobody has written to it.
 * @returns why it was left; undefined: there is no such file
 */
export async function unmakeFile(path: string, { identity, madeAtMs }: MadeFile): Promise<string | undefined> {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return undefined;
  });
  if (found === undefined) return undefined;
  if (!found.isFile()) return 'another kind of file is there now';
  const isIt =
    identity === ''
      ? found.birthtimeMs >= madeAtMs - CLOCK_TICK_MS && found.blocks * STAT_BLOCK_BYTES <= MADE_BYTES_MAX
      : fileIdentity(found) === identity;
  if (!isIt) return 'another file is there now';
  await unlink(path);
  return undefined;
}
