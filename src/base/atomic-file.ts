import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Replaces a file's contents: temporary file, fsync, rename, fsync of the directory. A reader finds the old contents or the new
 * ones, never half of one. Mode 0600. Not for two writers of one path at once.
 *
 * Each step is a trip through the thread pool, on the way of every attach: the directory is opened beside the file, and nobody waits
 * for their closing, which has nothing to say after an fsync.
 */
export async function writeAtomically(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  const [file, directory] = await openBoth(temporary, dirname(path));
  try {
    await file.writeFile(text);
    await file.sync();
    await rename(temporary, path);
    await directory.sync();
  } finally {
    closeSoon(file);
    closeSoon(directory);
  }
}

async function openBoth(file: string, directory: string): Promise<readonly [FileHandle, FileHandle]> {
  const opening = [open(file, 'w', 0o600), open(directory, 'r')] as const;
  try {
    return await Promise.all(opening);
  } catch (error) {
    for (const each of opening) each.then(closeSoon, () => undefined);
    // Without the directory there is no way to write the file, and nobody looks for half a one.
    await Promise.allSettled(opening);
    await rm(file, { force: true }).catch(() => undefined);
    throw error;
  }
}

function closeSoon(handle: FileHandle): void {
  handle.close().catch(() => undefined);
}
