import { appendFile, readFile, rename, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { errnoOf, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { reasonRead } from '../base/reasons.ts';
import type { ShimEvent } from './event.ts';

/** An event as it is kept on disk: everything but the snapshot of its subject. */
const lineSchema = z.object({
  sequence: z.int().min(1),
  timeMs: z.number(),
  type: z.string(),
  sandboxId: z.string(),
  volumeId: z.string().optional(),
  generation: z.int(),
  cause: z.object({ reason: z.string().transform(reasonRead), message: z.string() }).optional(),
  timings: z.array(z.object({ phase: z.string(), milliseconds: z.number() })),
});

export type StoredEvent = z.infer<typeof lineSchema>;

/**
 * The event stream on disk, one JSON line an event, so that a watcher can go on after the daemon was restarted. Not
 * fsynced: it must outlive this process, not the host, and with the host all VMs are gone too.
 */
export class EventFile {
  readonly #path: string;
  readonly #retainedMax: number;
  readonly #log: Logger;
  #lines = 0;
  #failing = false;

  private constructor(path: string, retainedMax: number, log: Logger) {
    this.#path = path;
    this.#retainedMax = retainedMax;
    this.#log = log;
  }

  /**
   * Opens the file and reads what it retains, oldest first. Lines that cannot be understood (a write cut short) are
   * dropped.
   */
  static async open(
    path: string,
    retainedMax: number,
    log: Logger,
  ): Promise<{ readonly file: EventFile; readonly events: readonly StoredEvent[] }> {
    const file = new EventFile(path, retainedMax, log);
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return '';
      throw error;
    });
    const events = text.split('\n').flatMap((line) => parseLine(line) ?? []);
    const kept = events.slice(-retainedMax);
    await file.#rewrite(kept);
    return { file, events: kept };
  }

  /** Appends events; once the file has twice the retained length it is cut. A failure is logged once and not thrown. */
  async append(events: readonly ShimEvent[], retained: readonly ShimEvent[]): Promise<void> {
    try {
      if (this.#lines + events.length > 2 * this.#retainedMax) {
        await this.#rewrite(retained);
      } else {
        await appendFile(this.#path, render(events), { mode: 0o600 });
        this.#lines += events.length;
      }
      this.#failing = false;
    } catch (error) {
      if (!this.#failing)
        this.#log.error({ path: this.#path, problem: messageOf(error) }, 'events cannot be kept on disk');
      this.#failing = true;
    }
  }

  async #rewrite(events: readonly (ShimEvent | StoredEvent)[]): Promise<void> {
    const temporary = `${this.#path}.new`;
    await writeFile(temporary, render(events), { mode: 0o600 });
    await rename(temporary, this.#path);
    this.#lines = events.length;
  }
}

function render(events: readonly (ShimEvent | StoredEvent)[]): string {
  return events
    .map((event) => `${JSON.stringify({ ...event, ...('subject' in event ? { subject: undefined } : {}) })}\n`)
    .join('');
}

function parseLine(line: string): StoredEvent | undefined {
  if (line === '') return undefined;
  try {
    return lineSchema.parse(JSON.parse(line));
  } catch {
    return undefined;
  }
}
