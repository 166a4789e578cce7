import { once } from 'node:events';
import { createConnection, type Socket } from 'node:net';

/** The name of a virtio-serial port for the benchmark alone: the sandbox's own has one socket, and the daemon holds it. */
export const UEVENT_PORT = 'bench.uevents';

/**
 * Starts the guest's forwarder of uevents on the port of that name; it finds the port as it would without udev. Every contestant's
 * guest runs it, so what it costs, all pay.
 */
export const UEVENT_SCRIPT = `
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat "$name")" = ${UEVENT_PORT} ] || continue
  port=$(basename "$(dirname "$name")")
  /usr/sbin/qshim-uevents "/dev/$port" </dev/null >/dev/null 2>&1 &
  exit 0
done
exit 1`;

const TEXT_CHARS_MAX = 65_536;

/** Listens for virtio disks that are added: what the guest's own kernel announces, at which it can be used there. */
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

  /** "add@.../block/vdb" begins such an event, and NUL ends each part of it. */
  #take(text: string): void {
    this.#text = (this.#text + text).slice(-TEXT_CHARS_MAX);
    const count = (this.#text.match(/(?:^|\0)add@[^\0]+\/block\/vd[a-z]+(?=\0)/g) ?? []).length;
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
