import { readFile, rename } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Coalesced } from '../base/coalesce.ts';
import { ShimError, errnoOf, isShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import {
  laterMajor,
  upgraded,
  versionMembers,
  withChanged,
  withEach,
  withMissing,
  type Format,
  type JsonObject,
} from '../base/versions.ts';
import { cellFactsSchema } from '../confine/facts.ts';
import { portRecordSchema } from '../guest/containers/port.ts';
import { containersSchema, type ContainersRecord } from '../guest/containers/records.ts';
import { sandboxSpecSchema, sandboxStateSchema, startKindSchema } from '../sandbox/spec.ts';
import { maybe } from '../volume/model/maybe.ts';
import { causeSchema } from '../volume/model/state.ts';
import { volumeRecordSchema } from '../volume/record.ts';
import { unknownMembers, withUnknownMembers, type Kept } from './unknown-members.ts';
import { unknownValue } from './unknown-values.ts';

/**
 * What outlives the daemon:
 *
 *     Sandbox ─ commit ─▶ journal.ts ─ versions, unknown-members.ts ─▶ state.json
 *     anybody ─ emit ─▶ events.ts ─▶ event-file.ts: events.jsonl ─▶ then the watchers
 *     the next daemon ─ readJournal ─▶ upgrades ─▶ JournalRecord
 */

/**
 * Versions (base/versions.ts has the rules). What today's daemon writes is 1.0, and so has no `minor`: the versions
 * before there were minors refuse members that they do not know. So a member that came later is left out unless it is
 * asked for (`mount.partition`, `mount.fsck`), and a journal without it means what it always meant. Whoever adds one
 * that each journal must have adds an upgrade to the end of the chain, which gives it to journals that lack it; from
 * then on `minor` is written, and those versions set the journal aside and go by QEMU.
 *
 * What a later version has added is read past: the daemon knows nothing of it. `JournalRecord.kept` takes it to the
 * Journal of the sandbox (`goOn`), which puts it back into everything that it writes, into the object that it was in,
 * as long as there is that object (unknown-members.ts).
 */
export const JOURNAL_FORMAT: Format & { readonly major: 1 } = { major: 1, upgrades: [{ to: 0, upgrade: completed }] };

/** A journal that could not be written is tried again so often: it tells when it can, and has what it lacks. */
const RETRY_MS = 5000;
const failing = new Map<Journal, string>();

/** Why a journal of this daemon's cannot be written, as it was when it was last tried. */
export function journalProblem(): string | undefined {
  const [problem] = failing.values();
  return problem;
}

/**
 * The durable intent of one sandbox: `state.json` in its state directory. Written to a temporary file, fsynced,
 * renamed, directory fsynced: a reader finds the old record or the new one, never half of one.
 *
 * INVARIANT: whoever is about to change QEMU awaits `commit()` first, so that a daemon that comes back knows of it.
 * Commits that come while one is being written share the next one: a batch of attaches costs two writes, not twenty.
 */
export class Journal {
  readonly #path: string;
  readonly #render: () => JournalRecord;
  readonly #writes = new Coalesced(() => this.#write());
  #kept: Kept | undefined;
  #begun = false;

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
    this.#begun = true;
    return this.#writes.run();
  }

  /** Whether the file is this sandbox's: it was read, or is being written. Until then another's may lie there. */
  get begun(): boolean {
    return this.#begun;
  }

  /** Goes on with a record that was read: what of it is not known here will be in all that is written. */
  goOn({ kept }: JournalRecord): void {
    this.#begun = true;
    this.#kept = kept;
  }

  async #write(): Promise<void> {
    try {
      await writeAtomically(this.#path, JSON.stringify(this.#next(), withoutGaps));
      failing.delete(this);
    } catch (error) {
      this.#noteFailure(error);
      throw new ShimError('UNAVAILABLE', `cannot write the journal ${this.#path}: ${messageOf(error)}`, {
        reason: 'JOURNAL_WRITE_FAILED',
        metadata: { path: this.#path, errno: errnoOf(error) ?? '' },
        cause: error,
      });
    }
  }

  /** Without its directory the sandbox is gone, and nothing is to be written any more. */
  #noteFailure(error: unknown): void {
    if (errnoOf(error) === 'ENOENT') failing.delete(this);
    else {
      failing.set(this, `cannot write the journal ${this.#path}: ${messageOf(error)}`);
      setTimeout(() => void this.commit().catch(() => undefined), RETRY_MS).unref();
    }
  }

  /** What of the unknown members found no object to be with is gone for good. */
  #next(): unknown {
    const { kept, ...record } = this.#render();
    const known = { ...record, ...versionMembers(JOURNAL_FORMAT) };
    if (this.#kept === undefined) return known;
    const json = withUnknownMembers(this.#kept, known);
    this.#kept = { json, known };
    return json;
  }
}

/** Of a sandbox that has none, and of a journal from before there were any. */
export const NO_CONTAINERS: ContainersRecord = { eventsPort: 0, processes: [] };

/**
 * Gives journals from before there were minors what was added meanwhile: what all sandboxes and volumes were like until
 * then. The first ones left out what had no value; a spec without its `mount` would not be equal to the one of a
 * repeated Attach.
 */
function completed(journal: JsonObject): JsonObject {
  const whole: JsonObject = { ports: [], containers: NO_CONTAINERS, ...journal };
  return {
    ...whole,
    sandbox: withChanged(
      withMissing(whole['sandbox'], { start: { kind: 'cold', templateId: '', reason: '' } }),
      'spec',
      (spec) => withMissing(spec, { iothreads: 0, template: 'auto' }),
    ),
    volumes: withEach(whole['volumes'], (volume) =>
      withChanged(withMissing(volume, { placement: { vectors: 2, iothreads: [] } }), 'spec', (spec) =>
        withMissing(spec, { writeErrors: 'enospc', readErrors: 'report', mount: null, encryption: null }),
      ),
    ),
  };
}

/**
 * JSON has no undefined: it is written as null and read back as undefined, so that the member is there either way. A
 * spec that came back without its `mount` would no longer be deeply equal to the same request.
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
    /** How its QEMU is confined; left out where it is not. */
    confinement: cellFactsSchema.optional(),
  })
  .readonly();

/** Unknown members are left out of what is read; `kept` has them. */
const journalSchema = z
  .object({
    version: z.literal(JOURNAL_FORMAT.major),
    sandbox: sandboxSchema,
    volumes: z.array(volumeRecordSchema).readonly(),
    ports: z.array(portRecordSchema).readonly(),
    containers: containersSchema,
  })
  .readonly();

export type JournalSandbox = z.infer<typeof sandboxSchema>;
export type JournalRecord = z.infer<typeof journalSchema> & {
  /** The file that it was read from, when that has members that this version does not know. */
  readonly kept?: Kept;
};

/** Its name in a sandbox's state directory. */
export const JOURNAL_FILE = 'state.json';

/** In the name of a journal that could not be understood and was set aside. */
export const CORRUPT_MARK = '.corrupt-';
const LOGGED_MEMBERS_MAX = 20;

/**
 * Reads a sandbox's journal. A file that cannot be understood is set aside as `state.json.corrupt-TIME`, named in the
 * log, and undefined is the answer.
 * @throws ShimError FAILED_PRECONDITION / SANDBOX_NOT_ADOPTED when it is of a later major version, or has a value that
 *   this one does not know: it stays as it is
 */
export async function readJournal(path: string, log: Logger): Promise<JournalRecord | undefined> {
  const text = await textOf(path);
  if (text === undefined) return undefined;
  try {
    return understand(path, JSON.parse(text), log);
  } catch (error) {
    if (isShimError(error)) throw error;
    const aside = join(dirname(path), `${basename(path)}${CORRUPT_MARK}${Date.now()}`);
    await rename(path, aside);
    log.error({ path, aside, problem: messageOf(error).slice(0, 500) }, 'journal set aside as unreadable');
    return undefined;
  }
}

/**
 * For whoever is about to take a directory for another sandbox.
 * @throws ShimError FAILED_PRECONDITION / SANDBOX_NOT_ADOPTED when its journal is one that a later daemon can read
 */
export async function refuseLaterJournal(path: string): Promise<void> {
  const text = await textOf(path);
  if (text === undefined) return;
  try {
    parsed(path, JSON.parse(text));
  } catch (error) {
    if (isShimError(error)) throw error;
  }
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

interface Parsed {
  readonly file: JsonObject;
  readonly record: JournalRecord;
  readonly later: boolean;
}

/** @throws ShimError SANDBOX_NOT_ADOPTED for one that only a later daemon can read; Error for one that is damaged */
function parsed(path: string, json: unknown): Parsed {
  const version = laterMajor(json, JOURNAL_FORMAT);
  if (version !== undefined) {
    const problem = `has version ${version}, of a later qshim; this one reads version ${JOURNAL_FORMAT.major}`;
    throw notAdopted(path, problem, { version: String(version) });
  }
  const { file, later } = upgraded(json, JOURNAL_FORMAT);
  const { data: record, error } = journalSchema.safeParse(file);
  if (record !== undefined) return { file, record, later };
  const member = unknownValue(file, error);
  if (member === undefined) throw error;
  throw notAdopted(path, `has a value in ${member} that only a later qshim knows; this one does not read it`, {
    member,
  });
}

function notAdopted(path: string, problem: string, metadata: Readonly<Record<string, string>>): ShimError {
  return new ShimError('FAILED_PRECONDITION', `the journal ${path} ${problem}, and leaves it as it is`, {
    reason: 'SANDBOX_NOT_ADOPTED',
    metadata: { path, ...metadata },
  });
}

function understand(path: string, json: unknown, log: Logger): JournalRecord {
  const { file, record, later } = parsed(path, json);
  const unknown = unknownMembers(file, record);
  if (unknown.length === 0) return record;
  const shown = unknown.slice(0, LOGGED_MEMBERS_MAX);
  log.warn(
    { path, later, unknown: shown, count: unknown.length },
    'members of the journal that are not known here are kept',
  );
  return { ...record, kept: { json: file, known: record } };
}
