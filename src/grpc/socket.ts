import { constants } from 'node:fs';
import { access, chmod, chown, lstat, mkdir, open, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { Deadline, sleep } from '../base/deadline.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import { tryLock } from '../base/native.ts';

const CONNECT_TIMEOUT_MS = 2000;
const TURN_TIMEOUT_MS = 30_000;
const TURN_RETRY_MS = 10;
const ROOT = 0;
/** What the socket that was the lock of a state directory before (state-lock.ts) says to whoever connects. */
const HOLDER = /^qshimd ([0-9]+)\n/;

/**
 * Claims a socket path (claimSocket) and binds it, as one step: of processes that begin this at once over a socket that
 * is stale, one finds it so; each of the others finds the socket of the one before it.
 * @param option whose value the path follows from, for messages
 * @param group id of a group that may enter the directory
 * @throws what claimSocket and `bind` throw; ShimError FAILED_PRECONDITION / DIRECTORY_NOT_LOCKED
 */
export async function bindSocket(
  path: string,
  bind: () => Promise<void>,
  option: 'socket' | 'state_dir',
  group?: number,
): Promise<void> {
  await privateDirectory(dirname(path), option, group);
  if (group !== undefined) await openToGroup(dirname(path), group);
  await using _turn = await turnIn(dirname(path));
  await freePath(path);
  await bind();
}

/**
 * Waits for the turn in a directory, which lasts until the answer is disposed of. It is a lock (flock(2)) on the
 * directory itself: nothing is written that could be stale, and the kernel lets go of it when the process ends.
 * @throws ShimError FAILED_PRECONDITION / DIRECTORY_NOT_LOCKED
 */
export async function turnIn(directory: string): Promise<AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const handle = stack.use(await open(directory, 'r'));
  const deadline = Deadline.after(TURN_TIMEOUT_MS);
  while (!lockOf(handle.fd, directory)) {
    if (deadline.expired) throw notLocked(directory, `another process has held it for ${TURN_TIMEOUT_MS} ms`);
    await sleep(TURN_RETRY_MS);
  }
  return stack.move();
}

/**
 * Locks an open file or directory, without waiting. False when another open file has the lock.
 * @throws ShimError FAILED_PRECONDITION / DIRECTORY_NOT_LOCKED when its file system does not lock files
 */
export function lockOf(fd: number, path: string): boolean {
  try {
    return tryLock(fd);
  } catch (error) {
    const why = `its file system does not lock files (${messageOf(error)}); local ones do`;
    throw notLocked(path, why, error);
  }
}

function notLocked(path: string, why: string, cause?: unknown): ShimError {
  const metadata = { path };
  const message = `${path} cannot be locked against other daemons: ${why}`;
  return new ShimError('FAILED_PRECONDITION', message, { reason: 'DIRECTORY_NOT_LOCKED', metadata, cause });
}

/**
 * Makes a directory for sockets, or sees that the one which is there is ours alone.
 * @param group id of a group whose members may enter it, if it belongs to that group
 * @throws ShimError FAILED_PRECONDITION / DIRECTORY_NOT_USABLE, SOCKET_DIRECTORY_OPEN, which name the option to set
 */
export async function privateDirectory(directory: string, option: string, group?: number): Promise<void> {
  let mode: number;
  let owner: number;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const found = await lstat(directory);
    mode = found.gid === group ? found.mode & ~0o010 : found.mode;
    owner = found.uid;
    await access(directory, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    const message = `the directory ${directory} cannot be used: ${messageOf(error)}; ${elsewhere(option)}`;
    const metadata = { path: directory, option };
    throw new ShimError('FAILED_PRECONDITION', message, { reason: 'DIRECTORY_NOT_USABLE', metadata, cause: error });
  }
  // The owner of a directory may open it to whom they like, and exchange what is in it.
  const own = process.geteuid?.() ?? ROOT;
  if (owner !== ROOT && owner !== own) {
    throw isOpen(directory, option, `belongs to another user (uid ${owner})`, `chown ${own} ${directory}`);
  }
  if ((mode & 0o077) === 0) return;
  const others = `is open to others (mode ${(mode & 0o777).toString(8)})`;
  throw isOpen(directory, option, others, `chmod 700 ${directory}`);
}

function isOpen(directory: string, option: string, how: string, remedy: string): ShimError {
  const message = `the directory ${directory} ${how}; run: ${remedy}, or ${elsewhere(option)}`;
  return new ShimError('FAILED_PRECONDITION', message, {
    reason: 'SOCKET_DIRECTORY_OPEN',
    metadata: { path: directory, option },
  });
}

/** The members of a group may come to what they know the name of. */
async function openToGroup(directory: string, group: number): Promise<void> {
  if ((await lstat(directory)).gid !== group) await chown(directory, -1, group);
  await chmod(directory, 0o710);
}

function elsewhere(option: string): string {
  const variable = `QSHIM_${option.toUpperCase()}`;
  return `choose another place with the option ${option} (--${option.replaceAll('_', '-')}, ${variable})`;
}

/**
 * Makes a socket path free to bind: its directory exists with mode 0700, and no socket is left there from a process
 * that is gone. A socket that somebody answers on is never touched.
 * @throws ShimError FAILED_PRECONDITION / SOCKET_IN_USE, NOT_A_SOCKET; what privateDirectory throws
 */
export async function claimSocket(path: string): Promise<void> {
  await privateDirectory(dirname(path), 'socket');
  await freePath(path);
}

/** As claimSocket, in a directory that was looked at. */
export async function freePath(path: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new ShimError('FAILED_PRECONDITION', `${path} exists and is not a socket`, {
      reason: 'NOT_A_SOCKET',
      metadata: { path },
    });
  }
  const listener = await findListener(path);
  if (listener !== undefined) {
    const { pid } = listener;
    const who = pid === undefined ? 'another daemon' : `another daemon (pid ${pid})`;
    throw new ShimError('FAILED_PRECONDITION', `${who} listens on ${path}`, {
      reason: 'SOCKET_IN_USE',
      metadata: { path, ...(pid === undefined ? {} : { pid }) },
    });
  }
  await rm(path);
}

/** Whoever listens on a socket, and its pid where it says so; undefined when nobody does. */
async function findListener(path: string): Promise<{ readonly pid: string | undefined } | undefined> {
  const { promise, resolve } = Promise.withResolvers<{ readonly pid: string | undefined } | undefined>();
  const socket = connect({ path });
  // Someone who neither accepts nor refuses, or says nothing, is alive.
  socket.setTimeout(CONNECT_TIMEOUT_MS, () => resolve({ pid: undefined }));
  let connected = false;
  socket.once('connect', () => {
    connected = true;
  });
  socket.once('data', (bytes) => resolve({ pid: HOLDER.exec(bytes.toString('latin1'))?.[1] }));
  socket.once('end', () => resolve({ pid: undefined }));
  socket.once('error', (error) => {
    const nobody = !connected && (errnoOf(error) === 'ECONNREFUSED' || errnoOf(error) === 'ENOENT');
    resolve(nobody ? undefined : { pid: undefined });
  });
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
