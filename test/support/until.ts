import { setTimeout as sleep } from 'node:timers/promises';

const LIMIT_MS = 60_000;
const PAUSE_MS = 20;

/** Looks again and again until `holds` is true; fails, naming what was waited for, when it never comes to be. */
export async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + LIMIT_MS;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`it never came to be: ${what}`);
    await sleep(PAUSE_MS);
  }
}
