import { randomBytes } from 'node:crypto';
import { appendFile, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { reasonRead } from '../base/reasons.ts';
import type { ShimEvent } from './event.ts';

/** An event as it is kept on disk: everything but the snapshot of its subject. */
const lineSchema = z.object({
  /** Events of versions that had none are given one when they are read. */
  epoch: z.string().optional(),
  sequence: z.int().min(1),
  timeMs: z.number(),
  type: z.string(),
  sandboxId: z.string(),
  volumeId: z.string().optional(),
  generation: z.int(),
  cause: z.object({ reason: z.string().transform(reasonRead), message: z.string() }).optional(),
  timings: z.array(z.object({ phase: z.string(), milliseconds: z.number() })),
});

type Line = z.infer<typeof lineSchema>;
type StoredEvent = Line & { readonly epoch: string };

/** What the last daemon has left. */
export interface KeptEvents {
  readonly file: EventFile;
  /** Oldest first. */
  readonly events: readonly StoredEvent[];
  /** In which the numbers go on. */
  readonly epoch: string;
  /** Later events were told, and could not be kept: nobody can go on from any of these. */
  readonly incomplete: boolean;
}

/** A name for a numbering that no other has. */
export function newEpoch(): string {
  return randomBytes(8).toString('hex');
}

/**
 * The event stream on disk, one JSON line an event, so that a watcher can go on after the daemon was restarted. Not
 * fsynced: it must outlive this process, not the host, and with the host all VMs are gone too.
 *
 * While events cannot be kept, the file lies under another name, which takes no room: so the next daemon knows that it
 * is not all that was told. It is written anew, whole, as soon as that is possible.
 */
export class EventFile {
  readonly #path: string;
  readonly #retainedMax: number;
  readonly #log: Logger;
  #lines: number;
  /** Not all that was told is in the file. */
  #failing: boolean;

  private constructor(path: string, retainedMax: number, log: Logger, lines: number, failing: boolean) {
    this.#path = path;
    this.#retainedMax = retainedMax;
    this.#log = log;
    this.#lines = lines;
    this.#failing = failing;
  }

  /**
   * Reads what the file retains. Lines that cannot be understood are dropped; one at the end whose write was cut short
   * is taken out of the file, which needs no room.
   * @throws the system error when it cannot be read
   */
  static async open(path: string, retainedMax: number, log: Logger): Promise<KeptEvents> {
    const whole = await textOf(path);
    const text = whole ?? (await textOf(incompletePath(path))) ?? '';
    const incomplete = whole === undefined && text !== '';
    const good = text.lastIndexOf('\n') + 1;
    const events = withEpochs(text.slice(0, good).split('\n').flatMap(parseLine));
    // One that cannot be cut is written anew before anything is appended to it.
    let isWhole = !incomplete;
    if (whole !== undefined) {
      if (good < text.length) isWhole = await cut(path, Buffer.byteLength(text.slice(0, good)));
      await rm(incompletePath(path), { force: true }).catch(() => undefined);
    }
    const file = new EventFile(path, retainedMax, log, events.length, !isWhole);
    const epoch = incomplete ? newEpoch() : (events.at(-1)?.epoch ?? newEpoch());
    return { file, events: events.slice(-retainedMax), epoch, incomplete };
  }

  /**
   * Appends events; once the file has twice the retained length, or lacks any that were told, it is written anew.
   * @param retained what it is to have then, `events` among it
   * @returns whether all that was told, and `events`, are in the file. A failure is logged once and not thrown
   */
  async append(events: readonly ShimEvent[], retained: readonly ShimEvent[]): Promise<boolean> {
    try {
      if (this.#failing || this.#lines + events.length > 2 * this.#retainedMax) {
        await this.#rewrite(retained);
      } else {
        await appendFile(this.#path, render(events), { mode: 0o600 });
        this.#lines += events.length;
      }
      if (this.#failing) this.#log.info({ path: this.#path }, 'events are kept on disk again');
      this.#failing = false;
      return true;
    } catch (error) {
      if (!this.#failing) await this.#setAside(error);
      this.#failing = true;
      return false;
    }
  }

  async #setAside(cause: unknown): Promise<void> {
    this.#log.error({ path: this.#path, problem: messageOf(cause) }, 'events cannot be kept on disk');
    await rename(this.#path, incompletePath(this.#path)).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return;
      this.#log.error({ path: this.#path, problem: messageOf(error) }, 'events on disk not marked as incomplete');
    });
  }

  async #rewrite(events: readonly ShimEvent[]): Promise<void> {
    const temporary = `${this.#path}.new`;
    try {
      await writeFile(temporary, render(events), { mode: 0o600 });
      await rename(temporary, this.#path);
    } catch (error) {
      // Half of it would only take room.
      await rm(temporary, { force: true }).catch(() => undefined);
      throw error;
    }
    await rm(incompletePath(this.#path), { force: true }).catch(() => undefined);
    this.#lines = events.length;
  }
}

function incompletePath(path: string): string {
  return `${path}.incomplete`;
}

async function textOf(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
}

/** @returns whether it could be cut; not on a file system that is read-only now */
async function cut(path: string, bytes: number): Promise<boolean> {
  try {
    await using file = await open(path, 'r+');
    await file.truncate(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Versions before there were epochs numbered on behind each other: theirs is the one that came next. */
function withEpochs(lines: readonly Line[]): readonly StoredEvent[] {
  let epoch = newEpoch();
  return lines
    .toReversed()
    .map((line) => {
      epoch = line.epoch ?? epoch;
      return { ...line, epoch };
    })
    .toReversed();
}

function render(events: readonly ShimEvent[]): string {
  return events.map((event) => `${JSON.stringify({ ...event, subject: undefined })}\n`).join('');
}

function parseLine(line: string): readonly Line[] {
  if (line === '') return [];
  try {
    return [lineSchema.parse(JSON.parse(line))];
  } catch {
    return [];
  }
}
