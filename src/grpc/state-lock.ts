import { constants } from 'node:fs';
import { lstat, open, rename, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { ShimError, errnoOf } from '../base/errors.ts';
import { claimSocket, lockOf, privateDirectory, turnIn } from './socket.ts';

/**
 * The lock of a state directory is a file in it, which its daemon holds locked (flock(2)) for life: the kernel lets go
 * of it when the process ends, however it ends, and no child has it. In it is the pid of who holds it.
 *
 * It has the name of the socket that was the lock before. A daemon of those versions finds a file there, which is no
 * socket, and refuses to start: it would see none of the sandboxes.
 */
export const LOCK_FILE = 'lock.sock';

/** The pid is written over the last one in place, which works on a full file system too. */
const PID_BYTES = 16;

/**
 * One daemon at a time for a state directory.
 * @throws ShimError FAILED_PRECONDITION / STATE_DIR_IN_USE, DIRECTORY_NOT_LOCKED; SOCKET_IN_USE when a daemon of an
 *   earlier version has it; what privateDirectory throws
 */
export async function lockStateDirectory(directory: string): Promise<AsyncDisposable> {
  await privateDirectory(directory, 'state_dir');
  const path = join(directory, LOCK_FILE);
  await using stack = new AsyncDisposableStack();
  // Whoever does not get the lock reads the pid of who has it: both happen in a turn.
  await using _turn = await turnIn(directory);
  await clearWay(path);
  const handle = stack.use(await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600));
  if (!lockOf(handle.fd, path)) throw inUse(path, await holderOf(handle));
  // Without room for it there is no name to tell, and a lock all the same.
  await handle.write(`${process.pid}`.padEnd(PID_BYTES - 1) + '\n', 0).catch(() => undefined);
  return stack.move();
}

/** What earlier versions have left in the place of the file: their lock, or a sandbox that had its name for an id. */
async function clearWay(path: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (found === undefined || found.isFile()) return;
  // No id holds a "+". sandbox/directories.ts finds it by its journal.
  if (found.isDirectory()) await rename(path, `${path}+`);
  else await claimSocket(path);
}

async function holderOf(handle: FileHandle): Promise<string | undefined> {
  const { bytesRead, buffer } = await handle.read(Buffer.alloc(PID_BYTES), 0, PID_BYTES, 0);
  return /^[0-9]+/.exec(buffer.toString('latin1', 0, bytesRead))?.[0];
}

function inUse(path: string, pid: string | undefined): ShimError {
  const who = pid === undefined ? 'another daemon' : `another daemon (pid ${pid})`;
  return new ShimError('FAILED_PRECONDITION', `${who} has the state directory: it holds the lock ${path}`, {
    reason: 'STATE_DIR_IN_USE',
    metadata: { path, ...(pid === undefined ? {} : { pid }) },
  });
}
