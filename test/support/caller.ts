import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

const MAIN = join(import.meta.dirname, 'caller-main.ts');

export interface CallerRequest {
  readonly number: number;
  readonly service: 'Sandboxes' | 'Volumes' | 'Operations' | 'Events';
  readonly method: string;
  readonly request: object;
  readonly stream: boolean;
}

/** How a call ended, or what a stream brought. */
export interface CallerAnswer {
  readonly number: number;
  readonly value?: Readonly<Record<string, unknown>>;
  readonly message?: Readonly<Record<string, unknown>>;
  readonly open?: boolean;
  readonly refused?: {
    readonly code: string;
    readonly reason: string;
    readonly message: string;
    readonly metadata: Readonly<Record<string, string>>;
  };
}

/** A stream of answers. */
export interface CallerStream {
  readonly messages: readonly Readonly<Record<string, unknown>>[];
  readonly refused: CallerAnswer['refused'];
  readonly isOpen: boolean;
}

/** A caller of another user, in a process of its own. */
export class Caller implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #listeners = new Map<number, (answer: CallerAnswer) => void>();
  #last = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on('message', (answer: CallerAnswer) => this.#listeners.get(answer.number)?.(answer));
  }

  /** Needs root. A process that is forked with a user of its own has no other groups than its own. */
  static async start(socket: string, { uid, gid }: { readonly uid: number; readonly gid: number }): Promise<Caller> {
    const child = fork(MAIN, [`unix:${socket}`], { uid, gid, execArgv: ['--disable-warning=ExperimentalWarning'] });
    const caller = new Caller(child);
    await once(child, 'message');
    return caller;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Makes a call, and gives its answer or its refusal. */
  async call(service: CallerRequest['service'], method: string, request: object = {}): Promise<CallerAnswer> {
    const { promise, resolve } = Promise.withResolvers<CallerAnswer>();
    this.#send({ service, method, request, stream: false }, resolve);
    return await promise;
  }

  /** Reason of the refusal of a call; `OK` when there was none. */
  async reason(service: CallerRequest['service'], method: string, request: object = {}): Promise<string> {
    const { refused } = await this.call(service, method, request);
    return refused === undefined ? 'OK' : refused.reason === '' ? refused.code : refused.reason;
  }

  /** Opens a stream of answers, which lasts as long as the caller. */
  stream(service: CallerRequest['service'], method: string, request: object = {}): CallerStream {
    const messages: Readonly<Record<string, unknown>>[] = [];
    const stream: { messages: typeof messages; refused: CallerAnswer['refused']; isOpen: boolean } = {
      ...{ messages, refused: undefined, isOpen: false },
    };
    this.#send({ service, method, request, stream: true }, ({ message, refused, open }) => {
      if (open === true) stream.isOpen = true;
      if (message !== undefined) messages.push(message);
      if (refused !== undefined) stream.refused = refused;
    });
    return stream;
  }

  #send(request: Omit<CallerRequest, 'number'>, listener: (answer: CallerAnswer) => void): void {
    this.#last += 1;
    this.#listeners.set(this.#last, listener);
    this.#child.send({ number: this.#last, ...request });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = once(this.#child, 'exit');
    this.#child.disconnect();
    await exited;
  }
}
