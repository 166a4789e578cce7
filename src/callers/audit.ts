import { appendFile, open, rename } from 'node:fs/promises';
import { errnoOf, messageOf, ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Denials, type LeftOut } from './denials.ts';

/** One line of the audit log. Names and references only: nothing in it is secret. */
export interface AuditEntry {
  readonly caller: string;
  /** Process that connected, where the kernel says so. */
  readonly pid: number | undefined;
  readonly method: string;
  readonly sandboxId: string | undefined;
  readonly volumeIds: readonly string[];
  /** References of keys, as `file:/etc/keys/a`; never a key. */
  readonly keys: readonly string[];
  readonly sources: readonly string[];
  /** Rules that let it pass, or that it missed. */
  readonly rules: readonly string[];
  /** OK, or the gRPC status. */
  readonly outcome: string;
  /** Why not; empty when OK. */
  readonly reason: string;
  readonly durationMs: number;
}

export interface AuditOptions {
  readonly path: string;
  /** At which the file becomes PATH.1, in place of the last one. */
  readonly bytesMax: number;
  /** Calls that belong here are refused while a line cannot be written. */
  readonly required: boolean;
  readonly log: Logger;
}

/** How often it is told how many denials had no line. */
const LEFT_OUT_MS = 60_000;
/** Lines that wait for the disk; more are dropped, and the next line that is written says how many. */
const WAITING_MAX = 1024;

/** Who did what, one JSON line a call: what changes something, what reads a secret, what was denied. */
export class AuditLog implements AsyncDisposable {
  readonly #options: AuditOptions;
  readonly #denials = new Denials();
  readonly #telling: NodeJS.Timeout;
  #waiting: string[] = [];
  #dropped = 0;
  #bytes: number;
  #writing: Promise<void> | undefined;
  #problem: string | undefined;

  private constructor(options: AuditOptions, bytes: number) {
    this.#options = options;
    this.#bytes = bytes;
    this.#telling = setInterval(() => this.#tellLeftOut(), LEFT_OUT_MS).unref();
  }

  /** @throws Error of the file system */
  static async open(options: AuditOptions): Promise<AuditLog> {
    await using file = await open(options.path, 'a', 0o600);
    await file.chmod(0o600);
    return new AuditLog(options, (await file.stat()).size);
  }

  /** Why lines are not written; undefined: they are. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /**
   * To be asked before a call that belongs here begins: where the operator requires the log, nothing is done that it
   * could not tell of.
   * @throws ShimError UNAVAILABLE / AUDIT_NOT_WRITTEN
   */
  async ready(): Promise<void> {
    if (!this.#options.required) return;
    if (this.#problem !== undefined) await this.#flush();
    const full = this.#waiting.length >= WAITING_MAX;
    if (this.#problem === undefined && !full) return;
    const why = this.#problem ?? 'too many lines wait for the disk';
    throw new ShimError('UNAVAILABLE', `the audit log ${this.#options.path} cannot be written: ${why}`, {
      reason: 'AUDIT_NOT_WRITTEN',
      metadata: { path: this.#options.path },
    });
  }

  /** Takes one line down. Never waits, never throws: `problem` tells of a failure. */
  write(entry: AuditEntry): void {
    this.#line({ ...entry });
  }

  #line(fields: Readonly<Record<string, unknown>>): void {
    if (this.#waiting.length >= WAITING_MAX) this.#dropped += 1;
    else this.#waiting.push(`${JSON.stringify({ time: new Date().toISOString(), ...fields })}\n`);
    void this.#flush();
  }

  /** Takes a denial down, or counts it: of one caller, so many have lines of their own (denials.ts). As `write`. */
  writeDenial(entry: AuditEntry): void {
    const before = this.#denials.count(entry.caller);
    if (before === undefined) return;
    if (before.leftOut > 0) this.#tell(before);
    this.write(entry);
  }

  #tellLeftOut(): void {
    for (const counted of this.#denials.settle()) this.#tell(counted);
  }

  #tell({ caller, leftOut }: LeftOut): void {
    this.#line({ caller, outcome: 'PERMISSION_DENIED', deniedWithoutLine: leftOut });
  }

  /** Never rejects. */
  async #flush(): Promise<void> {
    this.#writing ??= this.#drain().finally(() => {
      this.#writing = undefined;
    });
    await this.#writing;
  }

  async #drain(): Promise<void> {
    const { path, log } = this.#options;
    // Without a line to write this still finds out whether the file can be written again.
    while (this.#waiting.length > 0 || this.#problem !== undefined) {
      const lines = this.#waiting;
      const dropped = this.#dropped;
      this.#waiting = [];
      try {
        await this.#append(lines, dropped);
        this.#dropped -= dropped;
        if (this.#problem !== undefined) log.info({ path }, 'audit log is written again');
        this.#problem = undefined;
      } catch (error) {
        const all = [...lines, ...this.#waiting];
        this.#waiting = all.slice(0, WAITING_MAX);
        this.#dropped += all.length - this.#waiting.length;
        if (this.#problem === undefined) log.error({ path, problem: messageOf(error) }, 'audit log cannot be written');
        this.#problem = messageOf(error);
        return;
      }
    }
  }

  async #append(lines: readonly string[], dropped: number): Promise<void> {
    const { path } = this.#options;
    const notice = dropped === 0 ? '' : `${JSON.stringify({ time: new Date().toISOString(), dropped })}\n`;
    // What failed may have left half a line.
    const text = `${this.#problem === undefined ? '' : '\n'}${lines.join('')}${notice}`;
    const bytes = Buffer.byteLength(text);
    await this.#rotate(bytes);
    await appendFile(path, text, { mode: 0o600 });
    this.#bytes += bytes;
  }

  async #rotate(more: number): Promise<void> {
    const { path, bytesMax } = this.#options;
    if (this.#bytes === 0 || this.#bytes + more <= bytesMax) return;
    await rename(path, `${path}.1`).catch((error: unknown) => {
      // Somebody has taken it away: the next line begins another.
      if (errnoOf(error) !== 'ENOENT') throw error;
    });
    this.#bytes = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#telling);
    this.#tellLeftOut();
    await this.#flush();
  }
}
