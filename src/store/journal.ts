import { readFile, rename } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Coalesced } from '../base/coalesce.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { portRecordSchema } from '../guest/containers/port.ts';
import { containersSchema, type ContainersRecord } from '../guest/containers/records.ts';
import { sandboxSpecSchema, sandboxStateSchema, startKindSchema } from '../sandbox/spec.ts';
import { maybe } from '../volume/model/maybe.ts';
import { causeSchema } from '../volume/model/state.ts';
import { volumeRecordSchema } from '../volume/record.ts';

/**
 * The durable intent of one sandbox: `state.json` in its state directory. Written to a temporary file, fsynced, renamed,
 * directory fsynced: a reader finds the old record or the new one, never half of one.
 *
 * INVARIANT: whoever is about to change QEMU awaits `commit()` first, so that a daemon that comes back knows of it.
 * Commits that come while one is being written share the next one: a batch of attaches costs two writes, not twenty.
 */
export class Journal {
  readonly #path: string;
  readonly #render: () => JournalRecord;
  readonly #writes = new Coalesced(() => this.#write());

  /** @param render gives the whole record as it is now; called once for each write */
  constructor(path: string, render: () => JournalRecord) {
    this.#path = path;
    this.#render = render;
  }

  /**
   * Resolves once a record that was rendered after this call is on disk.
   * @throws ShimError UNAVAILABLE / JOURNAL_WRITE_FAILED (disk full, read-only): then QEMU must not be changed
   */
  commit(): Promise<void> {
    return this.#writes.run();
  }

  async #write(): Promise<void> {
    try {
      await writeAtomically(this.#path, JSON.stringify(this.#render(), withoutGaps));
    } catch (error) {
      throw new ShimError('UNAVAILABLE', `cannot write the journal ${this.#path}: ${messageOf(error)}`, {
        reason: 'JOURNAL_WRITE_FAILED',
        metadata: { path: this.#path, errno: errnoOf(error) ?? '' },
        cause: error,
      });
    }
  }
}

/** Of a sandbox that has none, and of a journal from before there were any. */
export const NO_CONTAINERS: ContainersRecord = { eventsPort: 0, processes: [] };

/**
 * JSON has no undefined: it is written as null and read back as undefined, so that the member is there either way. A spec
 * that came back without its `mount` would no longer be deeply equal to the same request.
 */
function withoutGaps(_key: string, value: unknown): unknown {
  return value === undefined ? null : value;
}

const timingSchema = z.object({ phase: z.string(), milliseconds: z.number() }).readonly();

/** A sandbox as the journal keeps it. */
const sandboxSchema = z
  .object({
    id: z.string(),
    spec: sandboxSpecSchema,
    uuid: z.string(),
    createdAtMs: z.number(),
    accelerator: z.enum(['kvm', 'tcg']),
    acceleratorReason: z.string(),
    state: sandboxStateSchema,
    cause: maybe(causeSchema),
    /** Of QEMU: pid, and start time in clock ticks since the host's boot (field 22 of /proc/PID/stat). */
    process: maybe(z.object({ pid: z.int(), startTicks: z.number() }).readonly()),
    nextGeneration: z.int(),
    timings: z.array(timingSchema).readonly(),
    start: startKindSchema,
  })
  .readonly();

const journalSchema = z
  .object({
    version: z.literal(1),
    sandbox: sandboxSchema,
    volumes: z.array(volumeRecordSchema).readonly(),
    ports: z.array(portRecordSchema).readonly(),
    containers: containersSchema,
  })
  .readonly();

export type JournalSandbox = z.infer<typeof sandboxSchema>;
export type JournalRecord = z.infer<typeof journalSchema>;

/** Its name in a sandbox's state directory. */
export const JOURNAL_FILE = 'state.json';

/** In the name of a journal that could not be understood and was set aside. */
export const CORRUPT_MARK = '.corrupt-';

/**
 * Reads a sandbox's journal. A file that cannot be understood is set aside as `state.json.corrupt-TIME`, named in the
 * log, and undefined is the answer.
 */
export async function readJournal(path: string, log: Logger): Promise<JournalRecord | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return journalSchema.parse(JSON.parse(text));
  } catch (error) {
    const aside = join(dirname(path), `${basename(path)}${CORRUPT_MARK}${Date.now()}`);
    await rename(path, aside);
    log.error({ path, aside, problem: messageOf(error).slice(0, 500) }, 'journal set aside as unreadable');
    return undefined;
  }
}
