import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writeAtomically } from '../base/atomic-file.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

/** In the state directory: of which boot of the host the processes are that journals name. */
const BOOT_ID_FILE = 'boot-id';
const OF_THIS_BOOT = '/proc/sys/kernel/random/boot_id';

/**
 * Whether the host has booted since the last daemon started: then no process of a journal is there any more, whatever
 * has its pid and its start time now. False when no daemon has left word.
 */
export async function bootedSince(stateDir: string): Promise<boolean> {
  const noted = await readFile(join(stateDir, BOOT_ID_FILE), 'utf8').catch(() => undefined);
  return noted !== undefined && noted !== (await readFile(OF_THIS_BOOT, 'utf8'));
}

/** Leaves word for the next daemon. Without room for it there is none, rather than that of an earlier boot. */
export async function noteBoot(stateDir: string, log: Logger): Promise<void> {
  const path = join(stateDir, BOOT_ID_FILE);
  try {
    const now = await readFile(OF_THIS_BOOT, 'utf8');
    const noted = await readFile(path, 'utf8').catch(() => undefined);
    if (noted !== now) await writeAtomically(path, now);
  } catch (error) {
    log.warn({ path, problem: messageOf(error) }, 'boot of the host not noted');
    await rm(path, { force: true }).catch(() => undefined);
  }
}
