/** One run of the command: its streams, its global flags, and how results and failures leave it. */
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { SOCKET_PATH_BYTES_MAX, pathBytes } from '../base/socket-path.ts';
import { errnoOf, messageOf } from '../base/errors.ts';
import { visible, visibleJson } from '../base/visible.ts';
import { CliFailure, Interrupted } from './cli-failure.ts';
import type { Connection, ConnectionOptions } from './connection.ts';
import { EXIT } from './exit-codes.ts';
import type { Finding } from '../doctor/finding.ts';
import { hintFor, type Subject } from './hints.ts';
import { Progress } from './progress.ts';
import { tooLong, unreachable } from './unreachable.ts';
import { TerminalText } from './terminal-text.ts';
import { jsonValue } from './values.ts';

export const DEFAULT_SOCKET = '/run/qshim/qshim.sock';

export type Terminal = Writable & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number };
export type InputTerminal = Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown };

/** What the process gives to the command; tests give their own. */
export interface Surroundings {
  readonly stdin: InputTerminal;
  readonly stdout: Terminal;
  readonly stderr: Terminal;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly version: string;
  /** Aborts on Ctrl-C, SIGTERM, and when nobody reads stdout any more. */
  readonly signal: AbortSignal;
  /** Examines the host; injected, because the command itself may not import what this needs. */
  readonly doctor: (options: DoctorOptions) => Promise<readonly Finding[]>;
}

export interface DoctorOptions {
  readonly socketPath: string;
  /** The daemon's configuration file; undefined means where the daemon itself looks. */
  readonly configFile: string | undefined;
  /** containerd's configuration file, when its setup shall be looked at too. */
  readonly containerdConfig: string | undefined;
  readonly signal: AbortSignal;
}

export interface Globals {
  readonly json?: true | undefined;
  readonly socket?: string | undefined;
  readonly deadline?: number | undefined;
}

/** What a command is about, and what its waiting is called. */
export interface Work extends Subject {
  /** e.g. "attaching vol1 to sb1"; no progress without it. */
  readonly progress?: string;
  /** The daemon goes on after an interruption; how to look at the outcome. */
  readonly lookAgain?: string;
}

export class Session {
  readonly surroundings: Surroundings;
  exitCode: number = EXIT.ok;
  readonly #globals: () => Globals;

  constructor(surroundings: Surroundings, globals: () => Globals) {
    this.surroundings = surroundings;
    this.#globals = globals;
  }

  get json(): boolean {
    return this.#globals().json === true;
  }

  get socketPath(): string {
    const { env, cwd } = this.surroundings;
    const fromEnv = env['QSHIM_SOCKET'] === '' ? undefined : env['QSHIM_SOCKET'];
    return resolve(cwd, this.#globals().socket ?? fromEnv ?? DEFAULT_SOCKET);
  }

  /** Columns that a line may take; undefined when stdout is no terminal, and nothing is then cut. */
  get widthMax(): number | undefined {
    const { stdout } = this.surroundings;
    return stdout.isTTY === true ? stdout.columns : undefined;
  }

  get connectionOptions(): ConnectionOptions {
    return {
      socketPath: this.socketPath,
      deadlineMs: this.#globals().deadline,
      signal: this.surroundings.signal,
    };
  }

  /**
   * Runs one command against the daemon: connects, shows progress, and turns what it throws into one line on stderr
   * and an exit code. It never rejects.
   */
  async run(work: Work, body: (connection: Connection) => Promise<void>): Promise<void> {
    await this.guard(work, async () => {
      // Loading gRPC takes most of the command's start-up time; a socket that is not there needs none of it.
      this.checkSocket();
      const { Connection: Connect } = await import('./connection.ts');
      using connection = new Connect(this.connectionOptions);
      await body(connection);
    });
  }

  /** @throws CliFailure when the socket is not there or may not be used */
  checkSocket(): void {
    const { socketPath } = this;
    if (pathBytes(socketPath) > SOCKET_PATH_BYTES_MAX) throw tooLong(socketPath);
    try {
      accessSync(socketPath, constants.W_OK);
    } catch (error) {
      throw unreachable(socketPath, { errno: errnoOf(error), details: messageOf(error), cause: error });
    }
  }

  /** As run, without a connection. */
  async guard(work: Work, body: () => Promise<void>): Promise<void> {
    try {
      await body();
    } catch (error) {
      this.#report(error, work);
    }
  }

  /** Waits for `call` under a progress line, where there is one to show. */
  async waiting<T>(work: Work, call: () => Promise<T>): Promise<T> {
    if (work.progress === undefined || this.json) return await call();
    using _ = new Progress(this.surroundings.stderr, work.progress);
    return await call();
  }

  /** Writes bytes as they are, at the pace of the reader. */
  async writeOut(bytes: Uint8Array | string, target: Terminal = this.surroundings.stdout): Promise<void> {
    if (bytes.length === 0 || target.write(bytes)) return;
    try {
      await once(target, 'drain', { signal: this.surroundings.signal });
    } catch (error) {
      if (this.surroundings.signal.aborted) throw asInterrupted(this.surroundings.signal.reason);
      throw error;
    }
  }

  /** Bytes of a guest's as they are, or, to a terminal, as text that does nothing to it. */
  async writeOutput(bytes: Uint8Array, raw: boolean, target: Terminal = this.surroundings.stdout): Promise<void> {
    if (raw || target.isTTY !== true) {
      await this.writeOut(bytes, target);
      return;
    }
    const text = new TerminalText();
    await this.writeOut(text.write(bytes) + text.end(), target);
  }

  /** Text for people, ended by a newline. */
  async say(text: string): Promise<void> {
    await this.writeOut(`${text}\n`);
  }

  /** One JSON document, indented. */
  async document(value: unknown): Promise<void> {
    await this.writeOut(`${visibleJson(JSON.stringify(jsonValue(value), null, 2))}\n`);
  }

  /** One JSON document on a line of its own, for streams. */
  async jsonLine(value: unknown): Promise<void> {
    await this.writeOut(`${visibleJson(JSON.stringify(jsonValue(value)))}\n`);
  }

  /** A remark on stderr; programs that asked for JSON get none. */
  remark(text: string): void {
    if (!this.json) this.surroundings.stderr.write(`qshim: ${text}\n`);
  }

  #report(error: unknown, work: Work): void {
    if (error instanceof Interrupted) {
      this.exitCode = error.exitCode;
      if (error.exitCode === EXIT.interrupted && work.lookAgain !== undefined) {
        this.remark(`interrupted; the daemon finishes what it began (${work.lookAgain} shows how it ended)`);
      }
      return;
    }
    const failure =
      error instanceof CliFailure
        ? error
        : new CliFailure('INTERNAL', messageOf(error), {
            reason: 'INTERNAL',
            exitCode: EXIT.failed,
          });
    this.exitCode = failure.exitCode;
    this.surroundings.stderr.write(failureText(failure, this.json, work));
    // A look or a watch begins nothing.
    if (failure.reason === 'DEADLINE_EXCEEDED' && work.lookAgain !== undefined) {
      this.remark(`the daemon goes on with what it began (${work.lookAgain} shows how it ended)`);
    }
  }
}

/** How a failure looks on stderr: one line and perhaps a hint for people, one JSON object for programs. */
export function failureText(failure: CliFailure, json: boolean, subject: Subject = {}): string {
  const { code, reason, message, metadata } = failure;
  if (json) return `${visibleJson(JSON.stringify({ error: { code, reason, message, metadata } }))}\n`;
  const hint = hintFor(failure, subject);
  const line = `qshim: ${visible(message)} (${visible(reason)})\n`;
  return hint === undefined ? line : `${line}hint: ${hint}\n`;
}

function asInterrupted(reason: unknown): Interrupted {
  return reason instanceof Interrupted ? reason : new Interrupted(EXIT.interrupted);
}
