import { access, constants, open, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Deadline, sleep } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import { tryLock } from '../base/native.ts';
import { isDenied, type Finding } from './finding.ts';

const OTHERS_MODE_BITS = 0o077;
const LOCK_PATIENCE_MS = 5000;
const LOCK_RETRY_MS = 20;
const AS_DAEMON = 'run as the user of the daemon';

/** A file that QEMU will read. */
export async function checkReadableFile(check: string, path: string, remedy: string): Promise<Finding> {
  try {
    await access(path, constants.R_OK);
    const { size } = await stat(path);
    if (size === 0) return { check, status: 'failure', detail: `${path} is empty`, remedy };
    return { check, status: 'ok', detail: path };
  } catch (error) {
    const missing = errnoOf(error) === 'ENOENT';
    return {
      check,
      status: 'failure',
      detail: missing ? `${path} does not exist` : `${path} cannot be read: ${messageOf(error)}`,
      remedy: isDenied(errnoOf(error)) ? `let the user of the daemon read it: ${AS_DAEMON}` : remedy,
    };
  }
}

/** A folder that is the daemon's alone; one that does not exist yet must be makeable. */
export async function checkPrivateFolder(check: string, path: string, option: string): Promise<Finding> {
  const elsewhere = `${AS_DAEMON}, or choose another place with the option ${option}`;
  try {
    const { mode } = await stat(path);
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK);
    const shown = (mode & 0o777).toString(8).padStart(4, '0');
    if ((mode & OTHERS_MODE_BITS) === 0) return { check, status: 'ok', detail: `${path} (mode ${shown})` };
    return {
      check,
      status: 'warning',
      detail: `${path} is open to other users (mode ${shown})`,
      remedy: `chmod 0700 ${path}`,
    };
  } catch (error) {
    if (isDenied(errnoOf(error))) {
      return { check, status: 'failure', detail: `${path} may not be used by this user`, remedy: elsewhere };
    }
    if (errnoOf(error) !== 'ENOENT') {
      const remedy = `choose another place with the option ${option}`;
      return { check, status: 'failure', detail: `${path} cannot be used: ${messageOf(error)}`, remedy };
    }
  }
  const parent = await nearestExisting(path);
  try {
    await access(parent, constants.W_OK | constants.X_OK);
    return { check, status: 'ok', detail: `${path} does not exist yet; the daemon makes it` };
  } catch {
    return {
      check,
      status: 'failure',
      detail: `${path} does not exist and this user may not make it in ${parent}`,
      remedy: elsewhere,
    };
  }
}

/** The daemon locks its folders by flock(2), which not every file system offers. */
export async function checkFolderLock(path: string, lock = tryLock): Promise<Finding> {
  const check = 'folder lock';
  const folder = await nearestExisting(join(path, 'qshim'));
  const failure = (detail: string, remedy: string): Finding => ({ check, status: 'failure', detail, remedy });
  await using stack = new AsyncDisposableStack();
  let fd: number;
  try {
    // As the daemon does: a folder that may not be read says nothing about locks.
    fd = stack.use(await open(folder, 'r')).fd;
  } catch (error) {
    const remedy = `${AS_DAEMON}, or choose another place with the option state_dir`;
    return failure(`${folder} cannot be opened, so locks are not tried: ${messageOf(error)}`, remedy);
  }
  try {
    const deadline = Deadline.after(LOCK_PATIENCE_MS);
    while (!lock(fd, 'shared')) {
      if (deadline.expired) {
        const detail = `${folder} was locked by another process for ${LOCK_PATIENCE_MS} ms`;
        return failure(detail, 'look who holds it (lsof, lslocks): the daemon holds it for a moment only');
      }
      await sleep(LOCK_RETRY_MS);
    }
    return { check, status: 'ok', detail: `${folder} can be locked` };
  } catch (error) {
    const remedy = 'put the state and the socket on a local file system, where flock(2) works';
    return failure(`${folder} cannot be locked: ${messageOf(error)}`, remedy);
  }
}

/** The folders from which volumes may come. */
export async function checkAllowedRoots(roots: readonly string[]): Promise<Finding> {
  const check = 'allowed roots';
  const missing: string[] = [];
  for (const root of roots) {
    try {
      await access(root, constants.R_OK | constants.X_OK);
    } catch {
      missing.push(root);
    }
  }
  if (missing.length === 0) return { check, status: 'ok', detail: roots.join(', ') };
  return {
    check,
    status: 'warning',
    detail: `not there, or not readable: ${missing.join(', ')}`,
    remedy: 'make them, or name the folders of your volumes with the option allowed_roots',
  };
}

async function nearestExisting(path: string): Promise<string> {
  let candidate = dirname(path);
  while (candidate !== dirname(candidate)) {
    try {
      await stat(candidate);
      return candidate;
    } catch (error) {
      // What may not be looked at may be there.
      if (isDenied(errnoOf(error))) return candidate;
      candidate = dirname(candidate);
    }
  }
  return candidate;
}
