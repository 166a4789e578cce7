import { existsSync } from 'node:fs';
import { readFile, rmdir } from 'node:fs/promises';
import { sleep } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { groupName, mountOfCgroup2, openCgroups, ownGroup, usableCgroup2, type Groups } from './cgroup.ts';
import { SYSTEMD, Scopes, isScope, isSystemd, scopeGroup, tryScopes, type Systemd } from './scope.ts';

/** Who makes control groups on this host, and how they go: cgroup.ts makes them, or systemd does (scope.ts). */

/** A group can be busy for a moment after its last process was seen to end. */
const REMOVE_TRIES = 50;
const REMOVE_PAUSE_MS = 20;
/** systemd has more to do than this. */
const SCOPE_TRIES = 500;

/** This host; tests have another. */
export interface GroupHost {
  /** Of this process (proc_pid_mountinfo(5)). */
  readonly mountinfo?: string;
  readonly systemd?: Systemd;
}

/**
 * Control groups, as this host has them. Where systemd manages it a scope is tried: nobody else may make groups there.
 * @throws Error that says what keeps them from being used
 */
export async function findGroups({ mountinfo, systemd = SYSTEMD }: GroupHost = {}): Promise<Groups> {
  const mount = await usableCgroup2(mountinfo);
  if (!(await isSystemd(systemd))) return await openCgroups(mount);
  const scopes = new Scopes(mount, systemd);
  await tryScopes(scopes);
  return scopes;
}

/**
 * Removes a group whose processes have ended; a scope is waited for, since systemd removes that.
 * @throws Error when it stays, or the system error
 */
export async function removeGroup(directory: string): Promise<void> {
  if (isScope(directory)) await scopeGone(directory);
  else await removeOwnGroup(directory);
}

async function scopeGone(directory: string): Promise<void> {
  for (let left = SCOPE_TRIES; existsSync(directory); left -= 1) {
    if (left === 0) throw new Error(`systemd has not removed ${directory}`);
    await sleep(REMOVE_PAUSE_MS);
  }
}

async function removeOwnGroup(directory: string): Promise<void> {
  for (let left = REMOVE_TRIES; ; left -= 1) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      if (errnoOf(error) !== 'EBUSY' || left === 0) throw error;
      await sleep(REMOVE_PAUSE_MS);
    }
  }
}

/**
 * Removes the group of a QEMU that an earlier daemon started with this directory, and that has ended: no record tells
 * of it, nor who made it. Never rejects.
 * @param mountinfo of this process (proc_pid_mountinfo(5)); tests have another
 */
export async function removeLeftGroup(directory: string, log: Logger, mountinfo?: string): Promise<void> {
  try {
    const mount = mountOfCgroup2(mountinfo ?? (await readFile('/proc/self/mountinfo', 'utf8')));
    if (mount === undefined) return;
    const name = groupName(directory);
    for (const group of [ownGroup(mount, name), scopeGroup(mount, name)]) {
      // Where nothing can be removed, nothing is tried that is not there.
      if (existsSync(group)) await removeGroup(group);
    }
  } catch (error) {
    log.warn({ directory, problem: messageOf(error) }, 'control group of an earlier daemon not removed');
  }
}
