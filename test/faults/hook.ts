import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import type { HookCommand, HookNews } from './preload.ts';

const PRELOAD = join(import.meta.dirname, 'preload.ts');

/** The test's end of preload.ts: one daemon at a time is connected, a daemon that is started anew takes its place. */
export class Hook implements AsyncDisposable {
  readonly #server: Server;
  readonly #path: string;
  #control = Promise.withResolvers<Socket>();
  #done = Promise.withResolvers<undefined>();
  #held = Promise.withResolvers<undefined>();

  private constructor(server: Server, path: string) {
    this.#server = server;
    this.#path = path;
    server.on('connection', (socket) => {
      socket.on('error', () => undefined);
      socket.once('close', () => {
        this.#control = Promise.withResolvers<Socket>();
      });
      createInterface(socket).on('line', (line) => this.#onNews(JSON.parse(line) as HookNews));
      this.#control.resolve(socket);
    });
  }

  static async listen(path: string): Promise<Hook> {
    const server = createServer();
    const hook = new Hook(server, path);
    server.listen(path);
    await once(server, 'listening');
    return hook;
  }

  /** Arguments of node for the daemon that is to be hooked. */
  get nodeArguments(): readonly string[] {
    return ['--import', `${pathToFileURL(PRELOAD).href}?control=${encodeURIComponent(this.#path)}`];
  }

  /** The daemon will wait at the journal write that first shows the volume in this state; resolves once it waits. */
  async holdJournal(
    volumeId: string,
    state: string,
    moment: 'asked' | 'answered',
  ): Promise<{ held: Promise<undefined> }> {
    this.#held = Promise.withResolvers<undefined>();
    await this.#send({ kind: 'hold', volumeId, state, moment });
    return { held: this.#held.promise };
  }

  async release(): Promise<void> {
    await this.#send({ kind: 'release' });
  }

  /** Moves the daemon's wall clock; its monotonic clock stays. */
  async jump(milliseconds: number): Promise<void> {
    await this.#send({ kind: 'jump', milliseconds });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    await closed;
  }

  async #send(command: HookCommand): Promise<void> {
    const control = await this.#control.promise;
    this.#done = Promise.withResolvers<undefined>();
    control.write(`${JSON.stringify(command)}\n`);
    await this.#done.promise;
  }

  #onNews(news: HookNews): void {
    if ('held' in news) this.#held.resolve(undefined);
    else this.#done.resolve(undefined);
  }
}
