import { closeSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { UNMETERED, type Meter } from './budget.ts';
import { errnoOf } from './errors.ts';

const CHUNK_BYTES = 32 * 1024;
/** What a read is charged for at least, in bytes: the call costs as much as so many. */
const READ_COST_BYTES = 4096;

/** What a stream had taken out of its FIFO when it was left. */
export interface LeftBytes {
  readonly bytes: Buffer;
  /** The end has come: there is nothing behind these bytes. */
  readonly ended: boolean;
}

/**
 * Reads a FIFO, which is opened at the first read, and only as fast as the stream is read: the rest waits in the FIFO.
 * One read is taken ahead, in this stream and not in the socket below: `leave` knows it. So what waits for a slow
 * reader costs one chunk, also when it was written byte by byte.
 */
export class FifoStream extends Readable {
  readonly #source: number | (() => number);
  readonly #meter: Meter;
  #socket: Socket | undefined;
  #fd = -1;
  #resting = false;
  /** The meter wants a rest. */
  #pause: NodeJS.Timeout | undefined;
  #over = false;

  /**
   * @param source a descriptor, opened without blocking, which becomes the stream's own; or what gives one at the
   *   first read
   * @param meter counts what is read; none: nobody counts
   */
  constructor(source: number | (() => number), meter: Meter = UNMETERED) {
    super({ highWaterMark: 1 });
    this.#source = source;
    this.#meter = meter;
  }

  /**
   * Stops reading for good, and gives what was taken out of the FIFO and not read yet. The stream is destroyed.
   */
  leave(): LeftBytes {
    // Without an await: nothing is taken in between.
    const parts: Buffer[] = [];
    for (let part = this.#buffered(); part !== null; part = this.#buffered()) parts.push(part);
    const undecided = this.#over ? undefined : this.decide();
    const bytes = Buffer.concat([...parts, ...(undecided === undefined ? [] : [undecided.bytes])]);
    const ended = this.#over || undecided?.ended === true;
    this.destroy();
    return { bytes, ended };
  }

  override _read(): void {
    if (this.#socket === undefined) {
      try {
        this.#socket = this.#connect(typeof this.#source === 'number' ? this.#source : this.#source());
        if (!this.#readFirst()) return;
      } catch (error) {
        this.destroy(error instanceof Error ? error : new Error(String(error)));
        return;
      }
    }
    this.#resting = false;
    if (this.#pause === undefined) this.#socket.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    clearTimeout(this.#pause);
    if (this.#socket !== undefined) this.#socket.destroy();
    else if (typeof this.#source === 'number') closeSync(this.#source);
    callback(error);
  }

  /** Bytes are being waited for. */
  protected get isWaiting(): boolean {
    return this.#socket !== undefined && !this.#resting && !this.#over;
  }

  /** Passes bytes on. @returns false when there shall be no more for now */
  protected pass(bytes: Buffer): boolean {
    return this.push(bytes);
  }

  /**
   * Gives what was held back, when the stream is left; may read, without waiting (`readNow`), what it takes to know.
   */
  protected decide(): LeftBytes {
    return { bytes: Buffer.alloc(0), ended: false };
  }

  /** No more comes. */
  protected finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#socket?.destroy();
    if (!this.destroyed) this.push(null);
  }

  #buffered(): Buffer | null {
    return this.readableLength === 0 ? null : (this.read() as Buffer | null);
  }

  #connect(fd: number): Socket {
    this.#fd = fd;
    const buffer = Buffer.alloc(CHUNK_BYTES);
    const callback = (bytes: number): boolean => {
      // A copy: the buffer is filled again. False stops the reading at once; a socket that is paused reads one more
      // into itself.
      // An error thrown from here would be nobody's.
      try {
        this.#resting = !this.pass(Buffer.from(buffer.subarray(0, bytes)));
      } catch (error) {
        this.#resting = true;
        this.destroy(error instanceof Error ? error : new Error(String(error)));
      }
      return this.#charge(bytes) && !this.#resting;
    };
    const socket = new Socket({ fd, readable: true, writable: false, onread: { buffer, callback } });
    socket.on('error', (error) => this.destroy(error));
    // The last writer has closed its side.
    socket.once('end', () => this.finish());
    return socket;
  }

  /** @returns false when nothing is to be read for a while */
  #charge(bytes: number): boolean {
    const restMs = this.#meter.charge(Math.max(bytes, READ_COST_BYTES), 1);
    if (restMs === 0 || this.destroyed || this.#over) return true;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (!this.#resting) this.#socket?.resume();
    }, restMs);
    return false;
  }

  /**
   * poll(2) is silent of a last writer that went before this side was opened; read(2) is not.
   * @returns false: enough for now
   */
  #readFirst(): boolean {
    const first = this.readNow(CHUNK_BYTES);
    if (first === undefined) return true;
    this.#resting = true;
    this.#socket?.pause();
    if (first.length > 0) return this.pass(first);
    this.finish();
    return false;
  }

  /** @returns undefined when there is nothing now, and an empty buffer at the end of file */
  protected readNow(bytesMax: number): Buffer | undefined {
    if (this.#socket === undefined || this.#socket.destroyed) return undefined;
    const bytes = Buffer.alloc(bytesMax);
    try {
      return bytes.subarray(0, readSync(this.#fd, bytes));
    } catch (error) {
      if (errnoOf(error) === 'EAGAIN') return undefined;
      throw error;
    }
  }
}
