import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { NODE_FLAGS, nodeEnvironment } from '../base/node-flags.ts';
import { LeadsElsewhere } from './leads.ts';
import { messagePair, sendWithDescriptor } from './native.ts';
import { errorFrom, type Answer, type Request } from './wire.ts';

const PROGRAM = join(import.meta.dirname, '../files-main.ts');

/** Characters of what it says that are kept for a message. */
const SAID_MAX = 500;

/** A request without its number. */
type Asked = Request extends infer R ? (R extends Request ? Omit<R, 'id'> : never) : never;

interface Waiting {
  readonly id: number;
  readonly settle: PromiseWithResolvers<unknown>;
  readonly timer: NodeJS.Timeout;
  readonly onSign: () => void;
}

/** The helper has ended, or was ended, before it answered. */
export class HelperEnded extends Error {
  /** True when the file system gave no sign of life for the whole time limit. */
  readonly timedOut: boolean;

  constructor(problem: string, timedOut: boolean) {
    super(problem);
    this.timedOut = timedOut;
  }
}

/**
 * One process that looks at files for the daemon, one request after the other. When the file system gives no sign of
 * life for the time limit the process is killed; one that the kernel does not let die is left to it (`exited` stays
 * pending), and holds nothing of the daemon's.
 */
export class Helper {
  /** Resolves once it takes requests; rejects with HelperEnded. */
  readonly ready: Promise<void>;
  /** Resolves once the process is gone. */
  readonly exited: Promise<void>;
  readonly #child: ChildProcess;
  /** The daemon's end of what the helper has as descriptor 3. */
  readonly #line: number;
  readonly #ready = Promise.withResolvers<void>();
  #lastId = 0;
  #waiting: Waiting | undefined;
  #ended: HelperEnded | undefined;
  /** The end of what it has said on its standard error. */
  #said = '';

  /** @throws the system error (EMFILE) */
  constructor() {
    this.ready = this.#ready.promise;
    this.ready.catch(() => undefined);
    const [mine, its] = messagePair();
    this.#line = mine;
    try {
      // In a session of its own: a signal from the daemon's terminal is not for it. It ends with its channel.
      // Nothing of the daemon's output is for it: Node makes what a child inherits as 0, 1 or 2 block (libuv,
      // uv__process_child_init), for everybody who has that pipe open.
      this.#child = spawn(process.execPath, [...NODE_FLAGS, PROGRAM], {
        stdio: ['ignore', 'ignore', 'pipe', its, 'ipc'],
        serialization: 'advanced',
        detached: true,
        cwd: '/',
        env: nodeEnvironment(),
      });
    } catch (error) {
      closeSync(mine);
      throw error;
    } finally {
      closeSync(its);
    }
    const exited = Promise.withResolvers<void>();
    this.exited = exited.promise;
    this.#child.on('message', (answer: Answer) => this.#onAnswer(answer));
    this.#child.on('error', (error) => {
      this.#end(new HelperEnded(`it could not be run: ${error.message}`, false));
      if (this.#child.pid === undefined) exited.resolve();
    });
    this.#child.once('exit', (code, signal) => {
      const said = this.#said === '' ? '' : `: ${this.#said}`;
      this.#end(new HelperEnded(`it ended with ${signal ?? `code ${code ?? 'none'}`}${said}`, false));
      exited.resolve();
    });
    const stderr = this.#child.stderr;
    stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#said = `${this.#said}${text}`.slice(-SAID_MAX);
    });
    if (stderr instanceof Socket) stderr.unref();
    this.#child.unref();
    this.#child.channel?.unref();
  }

  /** False once it has ended or was killed. */
  get usable(): boolean {
    return this.#ended === undefined;
  }

  /**
   * Has it do something, and gives what came of it. One request at a time.
   * @param timeoutMs for how long the file system may give no sign of life
   * @param onSign hears of each
   * @throws HelperEnded; LeadsElsewhere; what the job throws
   */
  async ask(asked: Asked, timeoutMs: number, onSign: () => void = () => undefined): Promise<unknown> {
    if (this.#ended !== undefined) throw this.#ended;
    if (this.#waiting !== undefined) throw new Error('a helper does one thing at a time');
    this.#lastId += 1;
    const id = this.#lastId;
    const timer = setTimeout(() => this.#kill(timeoutMs), timeoutMs);
    const settle = Promise.withResolvers<unknown>();
    this.#waiting = { id, settle, timer, onSign };
    // It tells of a failure by 'error', which ends the helper.
    this.#child.send({ ...asked, id } satisfies Request, () => undefined);
    try {
      return await settle.promise;
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
    }
  }

  /** Lays bytes ready, and the socket that they are for; `ask({ kind: 'give' })` sends them. @throws HelperEnded */
  layReady(bytes: Uint8Array, socket: number): void {
    // Its number may be another file's by now.
    if (this.#ended !== undefined) throw this.#ended;
    sendWithDescriptor(this.#line, bytes, socket);
  }

  /** Ends it. */
  end(): void {
    this.#end(new HelperEnded('it was ended', false));
  }

  #kill(timeoutMs: number): void {
    this.#end(new HelperEnded(`nothing came for ${timeoutMs} ms`, true));
  }

  #end(cause: HelperEnded): void {
    if (this.#ended !== undefined) return;
    this.#ended = cause;
    this.#child.kill('SIGKILL');
    closeSync(this.#line);
    this.#ready.reject(cause);
    this.#waiting?.settle.reject(cause);
  }

  #onAnswer(answer: Answer): void {
    if (answer.kind === 'ready') {
      this.#ready.resolve();
      return;
    }
    const waiting = this.#waiting;
    if (waiting?.id !== answer.id || this.#ended !== undefined) return;
    waiting.onSign();
    switch (answer.kind) {
      case 'progress':
        waiting.timer.refresh();
        return;
      case 'done':
        waiting.settle.resolve(answer.value);
        return;
      case 'elsewhere':
        waiting.settle.reject(new LeadsElsewhere(answer.path));
        return;
      case 'failed':
        waiting.settle.reject(errorFrom(answer.error));
    }
  }
}
