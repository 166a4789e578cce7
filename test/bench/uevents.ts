import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';

/**
 * What the guest's kernel announces, as it comes through a virtio console: `busybox uevent` writes it there, since a console
 * is a terminal and so gets each line at once. The console slows the guest down a little, so latencies at the caller are
 * taken without it.
 */
export const UEVENT_SCRIPT = 'stty -F /dev/hvc0 raw -echo; exec busybox uevent >/dev/hvc0 2>/dev/null </dev/null &';
const TEXT_CHARS_MAX = 65_536;

/** Listens for block devices that are added. */
export class BlockUevents implements Disposable {
  readonly #socket: Socket;
  #text = '';
  #added = 0;
  #atMs: number[] = [];
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#take(chunk.toString('latin1')));
  }

  static async connect(path: string): Promise<BlockUevents> {
    const socket = createConnection(path);
    await once(socket, 'connect');
    return new BlockUevents(socket);
  }

  /** Forgets what has been seen; call it before the attach. */
  reset(): void {
    this.#text = '';
    this.#added = 0;
    this.#atMs = [];
  }

  /** Waits until so many disks were announced since the reset; when the last of them was, on performance.now(). */
  async until(count: number, timeoutMs = 30_000): Promise<number> {
    const end = performance.now() + timeoutMs;
    while (this.#added < count) {
      const left = end - performance.now();
      if (left <= 0) throw new Error(`${this.#added} of ${count} uevents came`);
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const timer = setTimeout(() => resolve(undefined), left);
      this.#wake = () => resolve(undefined);
      await promise;
      clearTimeout(timer);
    }
    return this.#atMs[count - 1] ?? Number.NaN;
  }

  /** "add@.../block/vdb" is the first line of such an event. */
  #take(text: string): void {
    this.#text = (this.#text + text).slice(-TEXT_CHARS_MAX);
    const count = (this.#text.match(/^add@\S+\/block\/vd[a-z]+\r?$/gm) ?? []).length;
    while (this.#added < count) {
      this.#added += 1;
      this.#atMs.push(performance.now());
    }
    this.#wake?.();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
