import { constants, type Stats } from 'node:fs';
import { open, realpath, type FileHandle } from 'node:fs/promises';
import { dirname, join, basename } from 'node:path';
import { errnoOf, isShimError } from '../base/errors.ts';
import { rootAbove } from '../files/roots.ts';
import { keyError, type KeyReason } from './errors.ts';

/**
 * Permissions that nobody but the owner may have. A JWE is no secret without its server, but others may still not write
 * it. systemd gives a service with User= its credentials through an ACL, whose mask stands where the group's bits are.
 */
const FORBIDDEN = { key: 0o077, credential: 0o037, jwe: 0o022 } as const;
export type SecretKind = keyof typeof FORBIDDEN;

const GROUP_READ = 0o040;
const KINDS_MASK = 0o170000;
const REGULAR = 0o100000;

export interface SecretFile {
  readonly path: string;
  /** Absolute directories, one of which the file must lie below once symbolic links are resolved. */
  readonly directories: readonly string[];
  /** More than this is KEY_TOO_LONG. */
  readonly bytesMax: number;
  readonly kind: SecretKind;
}

/**
 * Reads a whole small file into a Buffer of its exact size, which is the caller's to zero. It is opened without
 * following a symbolic link at the end and checked through the descriptor, so that what was checked is what is read:
 * regular, owned by root or by the daemon, and closed to everybody else (mode & 077 is 0 for a key).
 * @throws ShimError KEY_NOT_FOUND, KEY_SOURCE_REFUSED, KEY_SOURCE_DOWN (reading failed), KEY_EMPTY, KEY_TOO_LONG
 */
export async function readSecretFile(wanted: SecretFile): Promise<Buffer> {
  const metadata = { path: wanted.path };
  const refuse = (problem: string, cause?: unknown): Error =>
    keyError('KEY_SOURCE_REFUSED', `${wanted.path}: ${problem}`, { metadata, cause });
  try {
    if (!wanted.path.startsWith('/') || wanted.path.includes('\0')) throw refuse('must be an absolute path');
    // The directory part may hold links, the last part may not.
    const path = join(await realpath(dirname(wanted.path)), basename(wanted.path));
    const below = await rootAbove(path, wanted.path, wanted.directories);
    if (below === undefined || below === path) throw refuse('lies below none of the allowed directories');
    // O_NONBLOCK: a FIFO must not hold the daemon up. It has no effect on regular files.
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stats = await file.stat();
    const problem = problemOf(stats, wanted.kind);
    if (problem !== undefined) throw refuse(problem);
    if (stats.size > wanted.bytesMax) throw keyError('KEY_TOO_LONG', `${wanted.path}: is too long`, { metadata });
    if (stats.size === 0) throw keyError('KEY_EMPTY', `${wanted.path}: is empty`, { metadata });
    return await readExactly(file, stats.size, () =>
      keyError('KEY_SOURCE_DOWN', `${wanted.path}: changed while it was read`, { metadata }),
    );
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined || isShimError(error)) throw error;
    throw keyError(reasonOf(errno), `${wanted.path}: ${errno}`, { metadata, cause: error });
  }
}

function problemOf(stats: Stats, kind: SecretKind): string | undefined {
  if ((stats.mode & KINDS_MASK) !== REGULAR) return 'is no regular file';
  const uid = process.geteuid?.();
  if (stats.uid !== 0 && stats.uid !== uid) return `belongs to user ${stats.uid}, not to root or the daemon`;
  const groupReads = kind === 'credential' && (stats.mode & GROUP_READ) !== 0 && stats.gid !== 0;
  const closed = (stats.mode & FORBIDDEN[kind]) === 0 && !groupReads;
  return closed ? undefined : `mode ${(stats.mode & 0o7777).toString(8)} opens it to others`;
}

async function readExactly(file: FileHandle, bytes: number, changed: () => Error): Promise<Buffer> {
  // One byte more would show that the file grows.
  const buffer = Buffer.alloc(bytes + 1);
  try {
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length !== bytes) throw changed();
    const exact = Buffer.alloc(bytes);
    buffer.copy(exact, 0, 0, bytes);
    return exact;
  } finally {
    buffer.fill(0);
  }
}

function reasonOf(errno: string): KeyReason {
  if (errno === 'ENOENT' || errno === 'ENOTDIR') return 'KEY_NOT_FOUND';
  // ELOOP: the last part is a symbolic link. ENXIO: a socket, or a FIFO.
  return ['EACCES', 'EPERM', 'ELOOP', 'ENXIO', 'ENAMETOOLONG'].includes(errno)
    ? 'KEY_SOURCE_REFUSED'
    : 'KEY_SOURCE_DOWN';
}
