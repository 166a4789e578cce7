import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';

/** A request as the fake agent read it. */
export interface FakeRequest {
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly id: unknown;
  /** Sends raw bytes to the client, now or later. */
  readonly send: (bytes: string | Buffer) => void;
}

/** An answer that is no answer: nothing is sent. */
export const silence = Symbol('silence');

/** What the fake does with a request: a value (or a promise of one) is returned, an Error refused. */
export type Behaviour = (request: FakeRequest) => unknown;

export interface FakeAgentOptions {
  /** False: QEMU listens, but the guest has not opened its port: nothing is read from the socket. Default true. */
  readonly running?: boolean;
  readonly answer?: Behaviour;
}

const SENTINEL = 0xff;

/** Writes to a socket, and resolves when the kernel has taken it. @returns false when there is no open socket */
export async function paced(socket: Socket | undefined, bytes: string | Uint8Array): Promise<boolean> {
  if (socket?.writable !== true) return false;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const onClose = (): void => resolve(false);
  socket.once('close', onClose);
  socket.write(bytes, (error) => resolve(error === null || error === undefined));
  const isTaken = await promise;
  socket.off('close', onClose);
  return isTaken;
}

/**
 * A qemu-guest-agent behind a chardev socket of QEMU, in one object. As the real pair does, it serves one client, keeps
 * bytes in the socket while no agent runs, answers strictly in order, and answers 0xFF with a parse error.
 */
export class FakeAgent implements AsyncDisposable {
  /** Every request that was read, syncs included, in order. */
  readonly seen: string[] = [];
  answer: Behaviour;
  connections = 0;
  #server: Server | undefined;
  #socket: Socket | undefined;
  #running: boolean;
  #input = Buffer.alloc(0);
  #work: Promise<void> = Promise.resolve();
  #generation = 0;
  readonly #path: string;

  private constructor(path: string, options: FakeAgentOptions) {
    this.#path = path;
    this.#running = options.running ?? true;
    this.answer = options.answer ?? (() => ({}));
  }

  static async listen(path: string, options: FakeAgentOptions = {}): Promise<FakeAgent> {
    const agent = new FakeAgent(path, options);
    await agent.listen();
    return agent;
  }

  async listen(): Promise<void> {
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket));
    this.#server.listen(this.#path);
    await once(this.#server, 'listening');
  }

  /** The agent opens its port and reads what has been waiting. */
  start(): void {
    this.#running = true;
    this.#socket?.resume();
  }

  /** The agent ends: what it has read and not answered is lost; what comes later waits in the socket. */
  stop(): void {
    this.#running = false;
    this.#generation += 1;
    this.#input = Buffer.alloc(0);
    this.#socket?.pause();
  }

  /** QEMU closes the connection but still listens. */
  hangUp(): void {
    this.#socket?.destroy();
  }

  /** Bytes from the guest that nobody asked for. */
  send(bytes: string | Buffer): void {
    this.#socket?.write(bytes);
  }

  /** As `send`, at the pace at which they are read. @returns false when nobody is connected */
  async sendPaced(bytes: string | Buffer): Promise<boolean> {
    return await paced(this.#socket, bytes);
  }

  /** QEMU is gone: no connection, no listener. */
  async close(): Promise<void> {
    this.#generation += 1;
    this.#socket?.destroy();
    if (this.#server === undefined) return;
    this.#server.close();
    await once(this.#server, 'close');
    this.#server = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
    await this.#work;
  }

  #accept(socket: Socket): void {
    this.connections += 1;
    // QEMU notices a client that left even while the guest reads nothing, and drops what it had not read.
    this.#socket?.destroy();
    this.#socket = socket;
    this.#input = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    if (this.#running) socket.resume();
  }

  #read(chunk: Buffer): void {
    this.#input = Buffer.concat([this.#input, chunk]);
    for (;;) {
      const sentinel = this.#input.indexOf(SENTINEL);
      const newline = this.#input.indexOf('\n');
      if (sentinel !== -1 && (newline === -1 || sentinel < newline)) {
        this.#input = this.#input.subarray(sentinel + 1);
        this.#enqueue(() => '{"error": {"class": "GenericError", "desc": "JSON parse error, stray"}}\n');
      } else if (newline !== -1) {
        const line = this.#input.subarray(0, newline).toString('utf8');
        this.#input = this.#input.subarray(newline + 1);
        this.#enqueue(() => this.#reply(line));
      } else {
        return;
      }
    }
  }

  #enqueue(make: () => string | Buffer | undefined | Promise<string | Buffer | undefined>): void {
    const generation = this.#generation;
    this.#work = this.#work.then(async () => {
      if (generation !== this.#generation) return;
      const bytes = await make();
      // The guest knows nothing of connections: a late reply goes to whoever is connected by then.
      if (bytes !== undefined && generation === this.#generation) this.#socket?.write(bytes);
    });
  }

  async #reply(line: string): Promise<string | Buffer | undefined> {
    const request = JSON.parse(line) as { execute: string; arguments?: Record<string, unknown>; id?: unknown };
    this.seen.push(request.execute);
    if (request.execute === 'guest-sync-delimited') {
      return Buffer.concat([
        Buffer.of(SENTINEL),
        Buffer.from(`${JSON.stringify({ return: request.arguments?.['id'] })}\n`),
      ]);
    }
    const answer = await this.answer({
      execute: request.execute,
      arguments: request.arguments ?? {},
      id: request.id,
      send: (bytes) => this.#socket?.write(bytes),
    });
    if (answer === silence) return undefined;
    const { id } = request;
    if (answer instanceof Error) {
      return `${JSON.stringify({ error: { class: answer.name, desc: answer.message }, id })}\n`;
    }
    return `${JSON.stringify({ return: answer, id })}\n`;
  }
}
