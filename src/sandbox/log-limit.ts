import { open, stat } from 'node:fs/promises';
import { sleep } from '../base/deadline.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Config } from '../config.ts';
import type { SandboxFiles } from '../qemu/files.ts';

/** What has logs. */
interface Logging {
  readonly files: Pick<SandboxFiles, 'consoleLog' | 'qemuLog'>;
  readonly log: Logger;
}

/** What stood in a log before it was last cut. */
export function olderLog(path: string): string {
  return `${path}.1`;
}

/**
 * Cuts a log that has grown beyond its limit: its last half goes to `olderLog`, over what was there, and the log begins
 * anew. Its writer appends (O_APPEND), so that it goes on at the new end. What it writes between the copy and the cut
 * is lost.
 * @returns whether the log was cut
 */
export async function cutLog(path: string, bytesMax: number): Promise<boolean> {
  const { size } = await stat(path);
  if (size <= bytesMax) return false;
  await using log = await open(path, 'r+');
  const tail = Buffer.alloc(Math.floor(bytesMax / 2));
  const { bytesRead } = await log.read(tail, 0, tail.length, size - tail.length);
  await using older = await open(olderLog(path), 'w', 0o600);
  await older.writeFile(tail.subarray(0, bytesRead));
  await log.truncate(0);
  return true;
}

/**
 * Keeps console.log and qemu.log of every sandbox near `console_bytes_max`: a guest writes to its console as much as it
 * likes, and must not fill the host's disk with that. Nothing tells of a file's size, hence a look every
 * `console_check_ms`; a log exceeds its limit by what its guest writes in that time. Ends when the signal is aborted.
 */
export async function limitLogs(
  config: Config,
  sandboxes: () => Iterable<Logging>,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await sleep(config.console_check_ms, signal).catch(() => undefined);
    for (const sandbox of sandboxes()) {
      await limitLog(sandbox.files.consoleLog, config, sandbox.log);
      await limitLog(sandbox.files.qemuLog, config, sandbox.log);
    }
  }
}

async function limitLog(path: string, config: Config, log: Logger): Promise<void> {
  try {
    if (await cutLog(path, config.console_bytes_max)) log.info({ path }, 'log cut to its limit');
  } catch (error) {
    // A sandbox that is just being created or deleted has none.
    if (errnoOf(error) !== 'ENOENT') log.warn({ path, problem: messageOf(error) }, 'log not held to its limit');
  }
}
