import { randomUUID } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A temporary file that has no name any more: it is gone with its last descriptor, also when this process is killed. A
 * child that inherits the descriptor opens it as /proc/self/fd/N.
 */
export async function unnamedFile(bytes: Buffer): Promise<FileHandle> {
  const path = join(tmpdir(), `qshim-probe-${randomUUID()}`);
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
