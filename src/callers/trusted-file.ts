import { open } from 'node:fs/promises';

const BYTES_MAX = 1024 * 1024;
const WRITE_BITS = 0o022;
const ANY_BITS = 0o077;

/** Who besides its owner, which is root or the daemon's user, may do nothing with a file. */
export type Closed = 'to writers' | 'to readers';

/**
 * Reads a file that decides about access: its owner is root or the daemon's user, and others may not write it, or not
 * even read it. Symbolic links are followed: they are how credentials are often exchanged at once.
 * @throws Error that says what is wrong with it
 */
export async function readTrustedFile(path: string, closed: Closed): Promise<string> {
  await using file = await open(path, 'r');
  // What is looked at is what is read.
  const stats = await file.stat();
  if (!stats.isFile()) throw new Error(`${path} is no regular file`);
  if (stats.uid !== 0 && stats.uid !== process.geteuid?.()) {
    throw new Error(`${path} belongs to uid ${stats.uid}, not to root or the daemon`);
  }
  const mode = (stats.mode & 0o7777).toString(8);
  if (closed === 'to readers' && (stats.mode & ANY_BITS) !== 0) {
    throw new Error(`${path} is open to others (mode ${mode}); run: chmod 600 ${path}`);
  }
  if ((stats.mode & WRITE_BITS) !== 0) {
    throw new Error(`${path} can be written by others (mode ${mode}); run: chmod go-w ${path}`);
  }
  if (stats.size > BYTES_MAX) throw new Error(`${path} has more than ${BYTES_MAX} bytes`);
  return await file.readFile('utf8');
}
