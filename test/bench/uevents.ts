import { silentLogger } from '../../src/base/log.ts';
import { UeventStream } from '../../src/guest/uevents.ts';

/**
 * The name of a virtio-serial port for the benchmark alone: the sandbox's own has one socket, and the daemon holds it.
 */
export const UEVENT_PORT = 'bench.uevents';

/**
 * Starts the guest's forwarder of uevents on the port of that name; it finds the port as it would without udev. Every
 * contestant's guest runs it, so what it costs, all pay.
 */
export const UEVENT_SCRIPT = `
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat "$name")" = ${UEVENT_PORT} ] || continue
  port=$(basename "$(dirname "$name")")
  /usr/sbin/qshim-uevents "/dev/$port" </dev/null >/dev/null 2>&1 &
  exit 0
done
exit 1`;

const VIRTIO_DISK = /\/block\/vd[a-z]+$/;

/** Listens for virtio disks that are added: what the guest's own kernel announces, at which it can be used there. */
export class BlockUevents implements AsyncDisposable {
  #stream: UeventStream | undefined;
  #atMs: number[] = [];
  #wake: (() => void) | undefined;

  static async connect(path: string): Promise<BlockUevents> {
    const uevents = new BlockUevents();
    uevents.#stream = await UeventStream.connect(path, silentLogger(), {
      event: (event) => {
        if (event.action !== 'add' || !VIRTIO_DISK.test(event.path)) return;
        uevents.#atMs.push(performance.now());
        uevents.#wake?.();
      },
      lost: () => uevents.#wake?.(),
    });
    return uevents;
  }

  /** Forgets what has been seen; call it before the attach. */
  reset(): void {
    this.#atMs = [];
  }

  /** Waits until so many disks were announced since the reset; when the last of them was, on performance.now(). */
  async until(count: number, timeoutMs = 30_000): Promise<number> {
    const end = performance.now() + timeoutMs;
    while (this.#atMs.length < count) {
      const left = end - performance.now();
      if (left <= 0 || this.#stream?.open !== true) throw new Error(`${this.#atMs.length} of ${count} uevents came`);
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const timer = setTimeout(() => resolve(undefined), left);
      this.#wake = () => resolve(undefined);
      await promise;
      clearTimeout(timer);
    }
    return this.#atMs[count - 1] ?? Number.NaN;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stream?.[Symbol.asyncDispose]();
  }
}
