import { fstatSync, writeSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { sleep } from './deadline.ts';
import { messageOf } from './errors.ts';

/** What may wait for the reader of a pipe or socket. Beyond that it does not read, and lines are dropped. */
const WAITING_BYTES_MAX = 1024 * 1024;
/** How long a process that ends waits for such a reader. */
const FLUSH_MS = 1000;
const FLUSH_LOOK_MS = 10;

/** The line that tells how many lines were dropped, with its line feed. */
type Notice = (dropped: number, problem: string) => string;

/** Where text goes. @throws Error when it cannot */
interface Sink {
  put(text: string): void;
  /** Bytes that wait for their reader. */
  readonly waiting: number;
}

/**
 * Standard output or error, for a log. A log that fails never holds its process up and never ends it: a full disk, a
 * reader that does not read, one that has gone. Lines that cannot be written are dropped and counted, and the first
 * line that can be written again comes after a notice of it.
 */
export class LogOutput {
  readonly #sink: Sink;
  readonly #notice: Notice;
  #dropped = 0;
  #problem = '';

  private constructor(sink: Sink, notice: Notice) {
    this.#sink = sink;
    this.#notice = notice;
  }

  /** @param fd 1 or 2, or any other that is a file */
  static of(fd: number, notice: Notice): LogOutput {
    const stats = fd === 1 || fd === 2 ? fstatSync(fd) : undefined;
    if (stats?.isFIFO() !== true && stats?.isSocket() !== true) return new LogOutput(new FileSink(fd), notice);
    // Node writes to these without blocking, as far as they take it, and keeps the rest.
    const stream = fd === 1 ? process.stdout : process.stderr;
    const output: LogOutput = new LogOutput(new StreamSink(stream, (error) => output.#drop(error)), notice);
    return output;
  }

  /** @param line one line, with its line feed. Never throws */
  write(line: string): void {
    try {
      if (this.#dropped > 0) {
        this.#sink.put(this.#notice(this.#dropped, this.#problem));
        this.#dropped = 0;
      }
      this.#sink.put(line);
    } catch (error) {
      this.#drop(error);
    }
  }

  #drop(error: unknown): void {
    this.#dropped += 1;
    this.#problem = messageOf(error);
  }

  /** For a process that is about to end: gives a reader a moment to take what waits for it. */
  async flush(): Promise<void> {
    for (let left = FLUSH_MS; left > 0 && this.#sink.waiting > 0; left -= FLUSH_LOOK_MS) await sleep(FLUSH_LOOK_MS);
  }
}

/** A file or a device: each write is done when it returns, or has failed. */
class FileSink implements Sink {
  readonly #fd: number;
  /** A line was cut off in its middle. */
  #cut = false;
  readonly waiting = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  put(text: string): void {
    let bytes = Buffer.from(this.#cut ? `\n${text}` : text);
    let written = 0;
    while (bytes.length > 0) {
      try {
        written = writeSync(this.#fd, bytes);
      } catch (error) {
        // A disk that fills up takes a part of the last line.
        this.#cut ||= written > 0;
        throw error;
      }
      this.#cut = false;
      bytes = bytes.subarray(written);
    }
  }
}

class StreamSink implements Sink {
  readonly #stream: Writable;
  readonly #failed: (error: Error) => void;

  constructor(stream: Writable, failed: (error: Error) => void) {
    this.#stream = stream;
    this.#failed = failed;
    stream.on('error', () => undefined); // Told for each write.
  }

  get waiting(): number {
    return this.#stream.destroyed ? 0 : this.#stream.writableLength;
  }

  put(text: string): void {
    if (this.waiting + text.length > WAITING_BYTES_MAX) throw new Error('nobody reads it');
    this.#stream.write(text, (error) => {
      if (error !== null && error !== undefined) this.#failed(error);
    });
  }
}
