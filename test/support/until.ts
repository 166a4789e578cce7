import { setTimeout as sleep } from 'node:timers/promises';

const LIMIT_MS = 60_000;
const PAUSE_MS = 10;

/**
 * Looks again and again until `look` finds something, which is neither `false` nor undefined. The one way in which
 * tests wait for what nothing announces.
 *
 * @returns what it found
 * @throws Error naming what was waited for, when it never comes to be
 */
export async function until<T>(
  what: string,
  look: () => T | false | undefined | Promise<T | false | undefined>,
  limitMs = LIMIT_MS,
): Promise<T> {
  const end = performance.now() + limitMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > end) throw new Error(`it never came to be: ${what}`);
    await sleep(PAUSE_MS);
  }
}
