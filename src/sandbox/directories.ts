import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { ID_PATTERN } from '../base/ids.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { isJsonObject } from '../base/versions.ts';
import { MOVED_FROM_FILE, sandboxDirectory, sandboxFiles, sandboxesDirectory } from '../qemu/files.ts';
import { findQemu } from '../qemu/find.ts';
import { JOURNAL_FILE } from '../store/journal.ts';
import { POOL_DIRECTORY_PREFIX, SANDBOX_ID_FILE } from '../template/pool.ts';
import { LEFT_OVER_MARK } from './boot.ts';
import { idFromArguments } from './recover.ts';

/**
 * Where sandboxes have their directories: below one of their own, by a hash of their ids (qemu/files.ts), or where a
 * pool member had its own, a name that no caller chooses.
 *
 * Earlier versions had them in the state directory itself, beside the daemon's own files, by ids that were short
 * enough. They are moved when a daemon starts, also those of VMs that run: sockets, logs and working directory of a
 * QEMU move along, and what its command line says is kept beside them.
 */

/**
 * Brings the directories of earlier versions to their places. What cannot be moved stays, is named in the log, and is
 * adopted where it is. To be called before anything else makes use of a name in the state directory.
 */
export async function settleDirectories(stateDir: string, log: Logger): Promise<void> {
  const home = sandboxesDirectory(stateDir);
  try {
    await mkdir(home, { recursive: true, mode: 0o700 });
  } catch (error) {
    log.error({ directory: home, problem: messageOf(error) }, 'directory of sandboxes not made');
  }
  for (const directory of await directoriesIn(stateDir)) {
    try {
      const place = await placeOf(stateDir, directory);
      if (place === undefined) continue;
      await move(directory, place);
      log.info({ directory, place }, 'sandbox of an earlier layout moved');
    } catch (error) {
      log.error({ directory, problem: messageOf(error) }, 'sandbox of an earlier layout not moved');
    }
  }
}

/** Directories of all that an earlier daemon has left: of sandboxes, and of pool members. One for each id. */
export async function sandboxDirectories(stateDir: string, log: Logger): Promise<readonly string[]> {
  const settled = await directoriesIn(sandboxesDirectory(stateDir));
  const others: string[] = [];
  for (const directory of await directoriesIn(stateDir)) {
    const place = await placeOf(stateDir, directory);
    if (place === undefined || !existsSync(place)) others.push(directory);
    else log.error({ directory, place }, 'a second directory of one sandbox left alone');
  }
  return [...settled, ...others];
}

async function directoriesIn(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  return entries
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
    .map(({ name }) => join(directory, name));
}

/** Where a directory of an earlier version belongs; undefined for one that is no sandbox's, and stays. */
async function placeOf(stateDir: string, directory: string): Promise<string | undefined> {
  const id = await idOf(directory);
  const name = basename(directory);
  // A member that became a sandbox has no other name, and one that did not has none: it is ended where it is.
  if (id === undefined) return undefined;
  if (isPutAside(name, id)) return undefined;
  return name.startsWith(POOL_DIRECTORY_PREFIX)
    ? join(sandboxesDirectory(stateDir), name)
    : sandboxDirectory(stateDir, id);
}

/** Whether a directory was put aside under another name, and is nobody's; earlier, ids could have such names. */
function isPutAside(name: string, id: string): boolean {
  return name.includes(LEFT_OVER_MARK) && !id.includes(LEFT_OVER_MARK);
}

/**
 * The id of the sandbox that has a directory, by its journal, of whatever version, or by its QEMU; undefined when
 * neither tells, or what it tells cannot be an id.
 */
async function idOf(directory: string): Promise<string | undefined> {
  const id = (await idOfJournal(directory)) ?? (await idOfMember(directory)) ?? (await idOfQemu(directory));
  return id !== undefined && ID_PATTERN.test(id) ? id : undefined;
}

async function idOfJournal(directory: string): Promise<string | undefined> {
  try {
    const json: unknown = JSON.parse(await readFile(join(directory, JOURNAL_FILE), 'utf8'));
    if (!isJsonObject(json) || !isJsonObject(json['sandbox'])) return undefined;
    const { id } = json['sandbox'];
    return typeof id === 'string' ? id : undefined;
  } catch {
    return undefined;
  }
}

async function idOfMember(directory: string): Promise<string | undefined> {
  return await readFile(join(directory, SANDBOX_ID_FILE), 'utf8').catch(() => undefined);
}

async function idOfQemu(directory: string): Promise<string | undefined> {
  if (basename(directory).startsWith(POOL_DIRECTORY_PREFIX)) return undefined;
  const found = await findQemu(sandboxFiles(directory).qmpSocket);
  return found && idFromArguments(found.args);
}

/**
 * The note is there before the move: a daemon that is killed in between leaves one of the two. One that is there
 * already is of a QEMU that was started where it says.
 */
async function move(directory: string, place: string): Promise<void> {
  if (existsSync(place)) throw new Error(`${place} is there already`);
  await writeFile(join(directory, MOVED_FROM_FILE), directory, { mode: 0o600, flag: 'wx' }).catch((error: unknown) => {
    if (errnoOf(error) !== 'EEXIST') throw error;
  });
  await rename(directory, place);
}
