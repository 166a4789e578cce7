import { GrowingBuffer } from '../base/growing-buffer.ts';

/** 16 MiB: query-qmp-schema of QEMU 7.2, the largest reply that qshim asks for, is 0.2 MB. */
export const LINE_BYTES_MAX = 16 * 1024 * 1024;

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/**
 * Cuts a byte stream into lines. The cut depends on the bytes only, never on how they came in chunks.
 * Memory is bounded by twice `lineBytesMax` (bytes of one line, its "\n" not counted), and nothing of a chunk is kept.
 */
export class LineSplitter {
  readonly #lineBytesMax: number;
  readonly #part = new GrowingBuffer();
  #overflow = false;

  constructor(lineBytesMax: number = LINE_BYTES_MAX) {
    this.#lineBytesMax = lineBytesMax;
  }

  /**
   * Takes the next bytes and hands over the lines that they complete, in stream order, without their "\n" or "\r\n"
   * (QEMU ends lines with "\r\n"). Their memory is valid during the call only.
   * @returns false once a line has grown past the limit. It stays false, and no line comes any more: the place of the
   *   next line is not trusted
   */
  push(chunk: Buffer, take: (line: Buffer) => void): boolean {
    let start = 0;
    while (!this.#overflow) {
      const end = chunk.indexOf(NEWLINE, start);
      const part = chunk.subarray(start, end === -1 ? chunk.length : end);
      if (this.#part.length + part.length > this.#lineBytesMax) {
        this.#overflow = true;
        this.#part.clear();
        break;
      }
      if (end === -1) {
        this.#part.append(part);
        break;
      }
      this.#hand(part, take);
      start = end + 1;
    }
    return !this.#overflow;
  }

  #hand(part: Buffer, take: (line: Buffer) => void): void {
    if (this.#part.length === 0) {
      take(trimmed(part));
      return;
    }
    this.#part.append(part);
    const line = this.#part.bytes;
    take(trimmed(line));
    this.#part.clear();
  }
}

function trimmed(line: Buffer): Buffer {
  return line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line;
}
