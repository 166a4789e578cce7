import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LineSplitter } from '../../src/qmp/framing.ts';
import { paced } from './fake-agent.ts';
import type { QmpCommandName, QmpEventName, QmpEvents } from '../../src/qmp/protocol.ts';

export type Arguments = Readonly<Record<string, unknown>>;

/** Thrown or returned by a handler: QEMU refuses the command. */
export class QmpFailure extends Error {
  readonly errorClass: string;

  constructor(description: string, errorClass = 'GenericError') {
    super(description);
    this.errorClass = errorClass;
  }
}

/** Returned by a handler: this command gets no reply (now; `context.reply` may send one later). */
export const NO_REPLY: unique symbol = Symbol('no reply');

export interface HandlerContext {
  readonly id: unknown;
  /** Sends the reply now; a second call sends it again. */
  readonly reply: (value?: unknown) => void;
  readonly server: FakeQmp;
}

/** Gives the reply's value, a QmpFailure or NO_REPLY. A promise delays the reply and lets later ones overtake it. */
export type Handler = (args: Arguments, context: HandlerContext) => unknown;

export interface ReceivedCommand {
  readonly name: string;
  readonly arguments: Arguments;
  readonly id: unknown;
}

export interface FakeQmpOptions {
  /** The socket's path; default: in a directory of its own, which goes with the fake. */
  readonly path?: string;
  readonly version?: readonly [major: number, minor: number, micro: number];
  /** Sent in place of the greeting; null: nothing is. */
  readonly greeting?: unknown;
}

/**
 * A scripted QMP server for orders of events that a real QEMU does not give on request. Like QEMU it serves one client
 * at a time, lets further ones wait without a greeting, and loses events while nobody is connected. Commands without a
 * handler are answered `{}`; `fake-qemu-model.ts` adds handlers that behave like a small QEMU.
 */
export class FakeQmp implements AsyncDisposable {
  readonly path: string;
  /** Every command of every connection, oldest first. */
  readonly received: ReceivedCommand[] = [];
  readonly #server: Server;
  readonly #greeting: unknown;
  readonly #directory: string | undefined;
  readonly #handlers = new Map<string, Handler>();
  readonly #sockets = new Set<Socket>();
  readonly #waiting: Socket[] = [];
  readonly #watchers = new Set<() => void>();
  #current: Socket | undefined;
  #connections = 0;

  private constructor(server: Server, path: string, directory: string | undefined, options: FakeQmpOptions) {
    this.#server = server;
    this.path = path;
    this.#directory = directory;
    const [major, minor, micro] = options.version ?? [7, 2, 22];
    const version = { qemu: { major, minor, micro }, package: 'fake' };
    this.#greeting = options.greeting === undefined ? { QMP: { version, capabilities: ['oob'] } } : options.greeting;
    server.on('connection', (socket) => this.#onConnection(socket));
  }

  static async listen(options: FakeQmpOptions = {}): Promise<FakeQmp> {
    const directory = options.path === undefined ? await mkdtemp(join(tmpdir(), 'qshim-fake-')) : undefined;
    const path = options.path ?? join(directory ?? '', 'qmp.sock');
    const server = createServer();
    const fake = new FakeQmp(server, path, directory, options);
    server.listen(path);
    await once(server, 'listening');
    return fake;
  }

  /** How many clients have been greeted. */
  get connections(): number {
    return this.#connections;
  }

  /** Sets the handler of a command; it takes the place of an earlier one, of the model's too. */
  on(name: QmpCommandName, handler: Handler): this {
    this.#handlers.set(name, handler);
    return this;
  }

  /** The handler in force, for tests that wrap it. */
  handlerOf(name: QmpCommandName): Handler {
    return this.#handlers.get(name) ?? (() => ({}));
  }

  /** Sends an event to the client that is connected, if any. Any name goes, for events that nobody knows. */
  emit<E extends QmpEventName>(event: E, data: QmpEvents[E]): void;
  emit(event: string, data?: object): void;
  emit(event: string, data?: object): void {
    const nowMs = Date.now();
    const timestamp = { seconds: Math.floor(nowMs / 1000), microseconds: (nowMs % 1000) * 1000 };
    this.#send(data === undefined ? { timestamp, event } : { timestamp, event, data });
  }

  /** Sends bytes as they are: broken JSON, a line without an end. */
  sendRaw(bytes: string | Uint8Array): void {
    this.#current?.write(bytes);
  }

  /** As `sendRaw`, at the pace at which they are read. @returns false when nobody is connected */
  async sendPaced(bytes: string | Uint8Array): Promise<boolean> {
    return await paced(this.#current, bytes);
  }

  /** Cuts the connection at once. The next client is served as if nothing had been. */
  drop(): void {
    this.#current?.destroy();
  }

  /** Ends the connection after what has been written, as QEMU does after quit. */
  hangUp(): void {
    this.#current?.end();
  }

  /** Reads nothing more until `resumeReading`: the client's writes pile up. */
  pauseReading(): void {
    this.#current?.pause();
  }

  resumeReading(): void {
    this.#current?.resume();
  }

  /** The commands of one name, oldest first. */
  receivedOf(name: QmpCommandName): ReceivedCommand[] {
    return this.received.filter((command) => command.name === name);
  }

  /** Waits until a command has come `count` times in all, and gives the last of them. */
  async waitForCommand(name: QmpCommandName, count = 1): Promise<ReceivedCommand> {
    for (;;) {
      const found = this.receivedOf(name)[count - 1];
      if (found !== undefined) return found;
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const watcher = (): void => resolve(undefined);
      this.#watchers.add(watcher);
      await promise;
      this.#watchers.delete(watcher);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    if (this.#directory !== undefined) await rm(this.#directory, { recursive: true, force: true });
  }

  #onConnection(socket: Socket): void {
    this.#sockets.add(socket);
    // A client that breaks off is what some tests are about.
    socket.on('error', () => undefined);
    socket.once('close', () => this.#onClose(socket));
    if (this.#current === undefined) this.#serve(socket);
    else this.#waiting.push(socket);
  }

  #serve(socket: Socket): void {
    this.#current = socket;
    this.#connections += 1;
    const splitter = new LineSplitter();
    // As QEMU's monitor: one command after the other, in the order in which they came.
    let before: Promise<void> = Promise.resolve();
    socket.on('data', (chunk: Buffer) => {
      splitter.push(chunk, (bytes) => {
        const line = bytes.toString('utf8');
        before = before.then(() => this.#onLine(socket, line));
      });
    });
    if (this.#greeting !== null) this.#send(this.#greeting);
  }

  #onClose(socket: Socket): void {
    this.#sockets.delete(socket);
    const place = this.#waiting.indexOf(socket);
    if (place !== -1) this.#waiting.splice(place, 1);
    if (this.#current !== socket) return;
    this.#current = undefined;
    const next = this.#waiting.shift();
    if (next !== undefined) this.#serve(next);
  }

  async #onLine(socket: Socket, line: string): Promise<void> {
    const message = JSON.parse(line) as { execute: string; arguments?: Arguments; id?: unknown };
    const { execute: name, arguments: args = {}, id } = message;
    this.received.push({ name, arguments: args, id });
    for (const watcher of this.#watchers) watcher();
    const reply = (value: unknown = {}): void => send(socket, { return: value, id });
    try {
      const outcome = this.#handlers.get(name)?.(args, { id, reply, server: this }) ?? {};
      const value: unknown = outcome instanceof Promise ? await outcome : outcome;
      if (value instanceof QmpFailure) throw value;
      if (value !== NO_REPLY) reply(value);
    } catch (error) {
      const failure =
        error instanceof QmpFailure ? error : new QmpFailure(`the fake's handler failed: ${String(error)}`);
      send(socket, { id, error: { class: failure.errorClass, desc: failure.message } });
    }
  }

  #send(message: unknown): void {
    if (this.#current !== undefined) send(this.#current, message);
  }
}

/** To the connection that asked: the reply to a client that has gone must not reach the next one. */
function send(socket: Socket, message: unknown): void {
  if (!socket.destroyed) socket.write(`${JSON.stringify(message)}\r\n`);
}
