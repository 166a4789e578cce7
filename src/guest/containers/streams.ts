import { constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { Writable } from 'node:stream';
import type { Meter } from '../../base/budget.ts';
import { FifoStream, type LeftBytes } from '../../base/fifo.ts';
import { TokenCut } from './token.ts';

/** After this long without a byte from a process that has ended, its output is taken to be over. */
const QUIET_END_MS = 5000;
/** Reads to find out whether a token has begun; each but the last means that one seemed to. */
const DECIDE_MAX = 64;
const EMPTY = Buffer.alloc(0);
const READ_AHEAD_BYTES = 64 * 1024;

/**
 * What a process writes, read from the FIFO behind its port. It ends where the token stands that the guest writes after
 * the process has ended, for a port has no end of file of its own. When a process that was left behind keeps the port,
 * no token can come: then it ends once the port has been quiet for a while after the exit.
 */
export class PortReader extends FifoStream {
  readonly #cut: TokenCut | undefined;
  #exited = false;
  #quiet: NodeJS.Timeout | undefined;

  /**
   * @param token absent: there is no end, as for events
   * @param meter counts what is read; none: nobody counts
   */
  constructor(path: string, token: string | undefined, meter?: Meter) {
    super(() => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK), meter);
    this.#cut = token === undefined ? undefined : new TokenCut(token);
  }

  /** The process has ended: what is still to come is on its way. */
  processEnded(): void {
    this.#exited = true;
    this.#watchQuiet();
  }

  override _read(): void {
    super._read();
    this.#watchQuiet();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    clearTimeout(this.#quiet);
    super._destroy(error, callback);
  }

  protected override pass(chunk: Buffer): boolean {
    const { bytes, ended } = this.decide(chunk);
    const more = bytes.length === 0 || this.push(bytes);
    if (ended) this.finish();
    else this.#watchQuiet();
    return more;
  }

  /**
   * A token comes into the FIFO whole, being shorter than PIPE_BUF: when a chunk ends as one begins, its rest is in the
   * FIFO already, or it is none. So what a living process has written is passed on to its last byte, at once.
   */
  protected override decide(chunk: Buffer = EMPTY): LeftBytes {
    const cut = this.#cut;
    if (cut === undefined) return { bytes: chunk, ended: false };
    const first = cut.take(chunk);
    if (first.ended || cut.missingBytes === 0) return first;
    const parts = [first.bytes];
    // What was held may turn out to be output, and what follows it to be the token, or half of it.
    for (let tries = 0; tries < DECIDE_MAX && cut.missingBytes > 0; tries += 1) {
      const more = this.readNow(cut.missingBytes);
      if (more === undefined || more.length === 0) break;
      const next = cut.take(more);
      parts.push(next.bytes);
      if (next.ended) return { bytes: Buffer.concat(parts), ended: true };
    }
    return { bytes: Buffer.concat([...parts, cut.rest()]), ended: false };
  }

  protected override finish(): void {
    clearTimeout(this.#quiet);
    const rest = this.#cut?.rest();
    if (rest !== undefined && rest.length > 0 && !this.destroyed) this.push(rest);
    super.finish();
  }

  /** Counts only while somebody reads: a reader that is slow is not quiet. */
  #watchQuiet(): void {
    clearTimeout(this.#quiet);
    if (!this.#exited || !this.isWaiting || this.readableEnded) return;
    this.#quiet = setTimeout(() => {
      this.finish();
    }, QUIET_END_MS);
  }
}

/**
 * What a process reads, written into the FIFO behind its port. A write is done when the FIFO has taken it; when it is
 * full, the writer waits. `end` gives the process its end of file after the last byte; `destroy` only closes this side.
 */
export class PortWriter extends Writable {
  readonly #path: string;
  readonly #end: () => Promise<void>;
  #socket: Socket | undefined;

  /** @param end asks for the end of file, once this side is closed */
  constructor(path: string, end: () => Promise<void>) {
    super({ highWaterMark: READ_AHEAD_BYTES });
    this.#path = path;
    this.#end = end;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    let socket: Socket;
    try {
      socket = this.#socket ??= this.#open();
    } catch (error) {
      callback(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    socket.write(chunk, callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#close()
      .then(this.#end)
      .then(
        () => {
          callback();
        },
        (error: unknown) => {
          callback(error instanceof Error ? error : new Error(String(error)));
        },
      );
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#socket?.destroy();
    callback(error);
  }

  #open(): Socket {
    // Without a reader this fails (ENXIO) instead of waiting: then the port is gone.
    const fd = openSync(this.#path, constants.O_WRONLY | constants.O_NONBLOCK);
    const socket = new Socket({ fd, readable: false, writable: true });
    socket.on('error', (error) => this.destroy(error));
    return socket;
  }

  async #close(): Promise<void> {
    const socket = this.#socket;
    if (socket === undefined || socket.closed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.once('close', () => {
      resolve();
    });
    socket.destroy();
    await promise;
  }
}
