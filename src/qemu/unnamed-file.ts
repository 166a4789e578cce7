import { randomUUID } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A file that has no name any more: it is gone with its last descriptor, also when this process is killed. A child that
 * inherits the descriptor opens it as /proc/self/fd/N, another process of the same user as /proc/PID/fd/N. It never has
 * a name and its contents at once: who is killed in the first moment leaves an empty file.
 */
export async function unnamedFile(bytes: Buffer, directory: string = tmpdir()): Promise<FileHandle> {
  const path = join(directory, `qshim-${randomUUID()}`);
  const handle = await open(path, 'wx+', 0o600);
  try {
    await rm(path);
    await handle.writeFile(bytes);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}
