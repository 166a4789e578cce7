import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Replaces a file's contents: temporary file, fsync, rename, fsync of the directory. A reader finds the old contents or
 * the new ones, never half of one, and nothing but the file is left. Mode 0600. Not for two writers of one path at
 * once.
 *
 * Each step is a trip through the thread pool, on the way of every attach: file and directory are opened, and closed,
 * side by side.
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
    // Closing has nothing to say after an fsync.
    await Promise.allSettled(opening.map(async (each) => (await each).close()));
  }
}
