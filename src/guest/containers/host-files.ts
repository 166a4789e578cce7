import { open } from 'node:fs/promises';
import { ShimError, messageOf } from '../../base/errors.ts';
import type { ArchivedFile } from './tar.ts';
import type { PlannedFile } from './types.ts';

/** The largest host file that is copied into a guest: configuration, not data. */
export const FILE_BYTES_MAX = 256 * 1024;
const FILES_MAX = 64;

export interface CopiedFile extends ArchivedFile {
  readonly destination: string;
}

/**
 * Reads the small host files that a config.json binds (hosts, hostname, resolv.conf), to be copied into the guest.
 * Each keeps its owner, group, mode and time (in seconds). Later changes on either side are not carried over.
 * @throws ShimError INVALID_ARGUMENT / MOUNT_NOT_SUPPORTED, naming the mount, for what is not a small regular file
 */
export async function readHostFiles(files: readonly PlannedFile[]): Promise<readonly CopiedFile[]> {
  if (files.length > FILES_MAX) throw refused(`${files.length} host files`, `at most ${FILES_MAX} are copied`);
  return await Promise.all(
    files.map(async ({ destination, source }, index) => ({
      destination,
      name: `files/${index}`,
      ...(await readSmall(destination, source)),
    })),
  );
}

async function readSmall(destination: string, source: string): Promise<Omit<ArchivedFile, 'name'>> {
  const what = `the mount of the host's ${source} at ${destination}`;
  try {
    // O_NONBLOCK: a FIFO must not be waited for.
    await using file = await open(source, 0o4000);
    const stats = await file.stat();
    if (!stats.isFile()) throw refused(what, 'only regular files are copied into the guest');
    if (stats.size > FILE_BYTES_MAX) throw refused(what, `it has ${stats.size} bytes, at most ${FILE_BYTES_MAX}`);
    const content = Buffer.alloc(FILE_BYTES_MAX + 1);
    const { bytesRead } = await file.read(content, 0, content.length, 0);
    // It may grow while it is read.
    if (bytesRead > FILE_BYTES_MAX) throw refused(what, `it has more than ${FILE_BYTES_MAX} bytes`);
    const { mode, uid, gid, mtimeMs } = stats;
    return { mode, uid, gid, mtimeSeconds: mtimeMs / 1000, content: content.subarray(0, bytesRead) };
  } catch (error) {
    throw error instanceof ShimError ? error : refused(what, messageOf(error), error);
  }
}

function refused(what: string, why: string, cause?: unknown): ShimError {
  return new ShimError('INVALID_ARGUMENT', `${what} is not supported: ${why}`, {
    reason: 'MOUNT_NOT_SUPPORTED',
    metadata: { what },
    cause,
  });
}
