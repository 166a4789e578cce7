import { lstat, mkdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { ShimError, errnoOf } from '../base/errors.ts';

const CONNECT_TIMEOUT_MS = 2000;

/**
 * Makes a socket path free to bind: its directory exists with mode 0700, and no socket is left there from a process that
 * is gone. A socket that somebody answers on is never touched.
 * @throws ShimError FAILED_PRECONDITION / SOCKET_IN_USE, SOCKET_DIRECTORY_OPEN, NOT_A_SOCKET
 */
export async function claimSocket(path: string): Promise<void> {
  await privateDirectory(dirname(path));
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
  if (await somebodyListens(path)) {
    throw new ShimError('FAILED_PRECONDITION', `another daemon listens on ${path}`, {
      reason: 'SOCKET_IN_USE',
      metadata: { path },
    });
  }
  await rm(path);
}

async function privateDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { mode } = await lstat(directory);
  if ((mode & 0o077) === 0) return;
  throw new ShimError(
    'FAILED_PRECONDITION',
    `the directory ${directory} is open to others (mode ${(mode & 0o777).toString(8)}); run: chmod 700 ${directory}`,
    { reason: 'SOCKET_DIRECTORY_OPEN', metadata: { path: directory } },
  );
}

async function somebodyListens(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ path });
  // Someone who neither accepts nor refuses is alive.
  socket.setTimeout(CONNECT_TIMEOUT_MS, () => resolve(true));
  socket.once('connect', () => resolve(true));
  socket.once('error', (error) => resolve(errnoOf(error) !== 'ECONNREFUSED' && errnoOf(error) !== 'ENOENT'));
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}
