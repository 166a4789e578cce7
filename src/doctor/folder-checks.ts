import { access, constants, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Finding } from './finding.ts';

const OTHERS_MODE_BITS = 0o077;
const LOCK_PATIENCE_S = 5;

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
      remedy,
    };
  }
}

/** A folder that is the daemon's alone; one that does not exist yet must be makeable. */
export async function checkPrivateFolder(check: string, path: string, option: string): Promise<Finding> {
  const elsewhere = `run as the user of the daemon, or choose another place with the option ${option}`;
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
    if (errnoOf(error) !== 'ENOENT') {
      return { check, status: 'failure', detail: `${path} may not be used by this user`, remedy: elsewhere };
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

/** The daemon takes its turn at a folder by flock(2), through the program of that name. */
export async function checkFolderLock(path: string, program = 'flock'): Promise<Finding> {
  const check = 'folder lock';
  const folder = await nearestExisting(join(path, 'qshim'));
  try {
    await execa(program, ['-s', '-w', String(LOCK_PATIENCE_S), folder, 'true']);
    return { check, status: 'ok', detail: `${program} locks ${folder}` };
  } catch (error) {
    const missing = errnoOf(error) === 'ENOENT';
    return {
      check,
      status: 'failure',
      detail: missing ? `the program ${program} was not found` : `${folder} cannot be locked: ${messageOf(error)}`,
      remedy: missing ? 'apt-get install util-linux' : 'put the state and the socket on a local file system',
    };
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
    } catch {
      candidate = dirname(candidate);
    }
  }
  return candidate;
}
