import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Replaces a file's contents: temporary file, fsync, rename, fsync of the directory. A reader finds the old contents or the new
 * ones, never half of one, and nothing but the file is left. Mode 0600. Not for two writers of one path at once.
 *
 * Each step is a trip through the thread pool, on the way of every attach: the directory is opened beside the file, and nobody waits
 * for their closing, which has nothing to say after an fsync.
 * @throws the system error
 */
export async function writeAtomically(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  const opening = [open(temporary, 'w', 0o600), open(dirname(path), 'r')] as const;
  try {
    const [file, directory] = await Promise.all(opening);
    await file.writeFile(text);
    await file.sync();
    await rename(temporary, path);
    await directory.sync();
  } catch (error) {
    // What was opened late must not come after the removal.
    await Promise.allSettled(opening);
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  } finally {
    for (const each of opening) each.then(closeSoon, () => undefined);
  }
}

function closeSoon(handle: FileHandle): void {
  handle.close().catch(() => undefined);
}
