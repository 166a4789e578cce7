import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { TRIED_COMMANDS, type QemuCapabilities } from './qemu-capabilities.ts';

/** Counts up when the meaning of a member changes, so that files of an older qshim are asked anew. */
const FORMAT = 2;
/** Far above what a binary needs (7.2: 10 KB). */
const FILE_BYTES_MAX = 1024 * 1024;

const names = z.array(z.string()).transform((list): ReadonlySet<string> => new Set(list));

/** What could not be tried is no result, and is not kept. */
const trial = z.object({ outcome: z.enum(['works', 'refused', 'fatal']), detail: z.string() });

const fileSchema = z.object({
  format: z.literal(FORMAT),
  key: z.string(),
  capabilities: z.object({
    version: z.object({ major: z.int(), minor: z.int(), micro: z.int() }),
    versionText: z.string(),
    package: z.string(),
    commands: names,
    events: names,
    blockDrivers: names,
    ioUring: z.boolean(),
    iothreadVqMapping: z.boolean(),
    detachedLuksHeader: z.boolean(),
    runWithUser: z.boolean(),
    chardevReconnectMs: z.boolean(),
    trials: z.partialRecord(z.enum(TRIED_COMMANDS), trial),
    contractFindings: z.array(z.string()),
  }),
});

export interface CacheFile {
  readonly cacheDir: string;
  /** Names the binary and its state; a file of another key is not used. */
  readonly key: string;
}

/** Gives what an earlier run found, or undefined: no file, or (with a warning) one that is damaged. Never throws. */
export async function readCache(file: CacheFile, log: Logger): Promise<QemuCapabilities | undefined> {
  const path = pathOf(file);
  try {
    const text = await readFile(path, 'utf8');
    if (text.length > FILE_BYTES_MAX) throw new Error(`it has ${text.length} bytes`);
    const { key, capabilities } = fileSchema.parse(JSON.parse(text));
    if (key !== file.key) throw new Error('it belongs to another binary');
    return capabilities;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') log.warn({ path, error: messageOf(error) }, 'qemu capability cache ignored');
    return undefined;
  }
}

/** Writes beside and renames, so that a reader never sees half a file. Failure is a warning. Never throws. */
export async function writeCache(file: CacheFile, found: QemuCapabilities, log: Logger): Promise<void> {
  const path = pathOf(file);
  const temporary = `${path}.${randomUUID()}`;
  const capabilities = {
    ...found,
    commands: [...found.commands],
    events: [...found.events],
    blockDrivers: [...found.blockDrivers],
  };
  try {
    await mkdir(file.cacheDir, { recursive: true, mode: 0o700 });
    await writeFile(temporary, JSON.stringify({ format: FORMAT, key: file.key, capabilities }), {
      mode: 0o600,
      flag: 'wx',
    });
    await rename(temporary, path);
  } catch (error) {
    log.warn({ path, option: 'cache_dir', error: messageOf(error) }, 'qemu capability cache not written');
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

function pathOf(file: CacheFile): string {
  const digest = createHash('sha256').update(file.key).digest('hex').slice(0, 32);
  return join(file.cacheDir, `qemu-${digest}.json`);
}
