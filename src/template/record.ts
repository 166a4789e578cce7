import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { isShimError, messageOf } from '../base/errors.ts';
import { identifyFile } from '../qemu/file-identity.ts';
import { TEMPLATE_FORMAT, sameFile } from './key.ts';
import { heldMemorySchema, openMemory } from './memory.ts';

/** What lies beside a template's state: which file that is, who holds the memory, and what their maker has noted. */

const RECORD_FILE = 'template.json';
const RECORD_BYTES_MAX = 65_536;
const STAT_BLOCK_BYTES = 512;

const fileSchema = z.object({
  path: z.string(),
  device: z.string(),
  inode: z.string(),
  bytes: z.string(),
  modifiedNs: z.string(),
});

const recordSchema = z.object({
  format: z.literal(TEMPLATE_FORMAT),
  key: z.string(),
  memory: heldMemorySchema,
  state: fileSchema,
  /** What memory and state take; holes take nothing. */
  bytes: z.int(),
  createdAtMs: z.number(),
  /** Kept for who made it, unread here. */
  notes: z.record(z.string(), z.string()),
});

export type TemplateRecord = Readonly<z.infer<typeof recordSchema>>;
export type TemplateNotes = Readonly<Record<string, string>>;

/** Path of a template's state in its directory. */
export function stateFileIn(directory: string): string {
  return join(directory, 'state');
}

/** What a state file takes. @throws the system error */
export async function stateBytes(directory: string): Promise<number> {
  return (await stat(stateFileIn(directory))).blocks * STAT_BLOCK_BYTES;
}

/** Describes a template that was made in `directory` and will lie in `finalDirectory`; writes that down. */
export async function writeRecord(
  directory: string,
  finalDirectory: string,
  facts: Pick<TemplateRecord, 'key' | 'memory' | 'bytes' | 'notes'>,
): Promise<TemplateRecord> {
  const record: TemplateRecord = {
    format: TEMPLATE_FORMAT,
    ...facts,
    state: { ...(await identifyFile(stateFileIn(directory))), path: stateFileIn(finalDirectory) },
    createdAtMs: Date.now(),
  };
  await writeFile(join(directory, RECORD_FILE), JSON.stringify(record), { mode: 0o600 });
  return record;
}

/**
 * The record in a directory, of whatever template.
 * @throws when there is none, or it is no record of this format
 */
export async function readAnyRecord(directory: string): Promise<TemplateRecord> {
  const text = await readFile(join(directory, RECORD_FILE), 'utf8');
  if (text.length > RECORD_BYTES_MAX) throw new Error('its record is too long');
  return recordSchema.parse(JSON.parse(text));
}

/** The record in a template's directory. @throws as readAnyRecord, and when it is that of another key */
export async function readRecord(directory: string, key: string): Promise<TemplateRecord> {
  const record = await readAnyRecord(directory);
  if (record.key !== key) throw new Error('its record is that of another template');
  return record;
}

/**
 * Why a template is not what was published, or undefined when it is.
 * @throws the system error when its memory could not be looked at
 */
export async function recordProblem({ state, memory }: TemplateRecord): Promise<string | undefined> {
  try {
    if (!sameFile(await identifyFile(state.path), state)) return 'its state file has changed';
  } catch {
    return 'its state file is gone';
  }
  try {
    await (await openMemory(memory)).close();
    return undefined;
  } catch (error) {
    // A look that failed decides nothing.
    if (!isShimError(error)) throw error;
    return messageOf(error);
  }
}
