import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { identifyFile } from '../qemu/file-identity.ts';
import { TEMPLATE_FORMAT, sameFile } from './key.ts';

/** What lies beside a template's memory and state: which files they are, and what their maker needs to know of them. */

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
  memory: fileSchema,
  state: fileSchema,
  /** What both take on their file system; holes take nothing. */
  bytes: z.int(),
  createdAtMs: z.number(),
  /** Kept for who made it, unread here. */
  notes: z.record(z.string(), z.string()),
});

export type TemplateRecord = Readonly<z.infer<typeof recordSchema>>;
export type TemplateNotes = Readonly<Record<string, string>>;

/** Paths of a template's parts in its directory. */
export function templateFiles(directory: string): { readonly memory: string; readonly state: string } {
  return { memory: join(directory, 'memory'), state: join(directory, 'state') };
}

/** Describes a template that was made in `directory` and will lie in `finalDirectory`; writes that down. */
export async function writeRecord(
  directory: string,
  finalDirectory: string,
  key: string,
  notes: TemplateNotes,
): Promise<TemplateRecord> {
  const made = templateFiles(directory);
  const final = templateFiles(finalDirectory);
  const [memoryStat, stateStat] = await Promise.all([stat(made.memory), stat(made.state)]);
  const record: TemplateRecord = {
    format: TEMPLATE_FORMAT,
    key,
    memory: { ...(await identifyFile(made.memory)), path: final.memory },
    state: { ...(await identifyFile(made.state)), path: final.state },
    bytes: (memoryStat.blocks + stateStat.blocks) * STAT_BLOCK_BYTES,
    createdAtMs: Date.now(),
    notes,
  };
  await writeFile(join(directory, RECORD_FILE), JSON.stringify(record), { mode: 0o600 });
  return record;
}

/** The record in a template's directory. @throws when there is none, or it is no record of this format and key */
export async function readRecord(directory: string, key: string): Promise<TemplateRecord> {
  const text = await readFile(join(directory, RECORD_FILE), 'utf8');
  if (text.length > RECORD_BYTES_MAX) throw new Error('its record is too long');
  const record = recordSchema.parse(JSON.parse(text));
  if (record.key !== key) throw new Error('its record is that of another template');
  return record;
}

/** Why a template's files are not those that were published, or undefined when they are. */
export async function recordProblem(record: TemplateRecord): Promise<string | undefined> {
  for (const part of ['memory', 'state'] as const) {
    try {
      if (!sameFile(await identifyFile(record[part].path), record[part])) return `its ${part} file has changed`;
    } catch {
      return `its ${part} file is gone`;
    }
  }
  return undefined;
}
