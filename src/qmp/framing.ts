/** 16 MiB: query-qmp-schema of QEMU 7.2, the largest reply that qshim asks for, is 0.2 MB. */
export const LINE_BYTES_MAX = 16 * 1024 * 1024;

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;

export interface SplitResult {
  /** Complete lines in stream order, without their "\n" or "\r\n" (QEMU ends lines with "\r\n"). */
  readonly lines: readonly string[];
  /** True once a line has grown past the limit. It stays true: the place of the next line is not trusted any more. */
  readonly overflow: boolean;
}

/**
 * Cuts a byte stream into lines. The cut depends on the bytes only, never on how they came in chunks.
 * Memory is bounded by `lineBytesMax` (bytes of one line, its "\n" not counted) plus one chunk.
 */
export class LineSplitter {
  readonly #lineBytesMax: number;
  #parts: Buffer[] = [];
  #partsBytes = 0;
  #overflow = false;

  constructor(lineBytesMax: number = LINE_BYTES_MAX) {
    this.#lineBytesMax = lineBytesMax;
  }

  /** Takes the next bytes and gives the lines that they complete. After an overflow nothing more comes out. */
  push(chunk: Buffer): SplitResult {
    const lines: string[] = [];
    let start = 0;
    while (!this.#overflow) {
      const end = chunk.indexOf(NEWLINE, start);
      if (!this.#keep(chunk.subarray(start, end === -1 ? chunk.length : end)) || end === -1) break;
      lines.push(this.#takeLine());
      start = end + 1;
    }
    return { lines, overflow: this.#overflow };
  }

  /** False when the line has become too long. */
  #keep(part: Buffer): boolean {
    this.#partsBytes += part.length;
    if (this.#partsBytes > this.#lineBytesMax) {
      this.#overflow = true;
      this.#parts = [];
      return false;
    }
    if (part.length > 0) this.#parts.push(part);
    return true;
  }

  #takeLine(): string {
    // One join per line, so that a line that comes in many chunks costs linear time.
    const line = Buffer.concat(this.#parts, this.#partsBytes);
    this.#parts = [];
    this.#partsBytes = 0;
    const length = line.at(-1) === CARRIAGE_RETURN ? line.length - 1 : line.length;
    return line.toString('utf8', 0, length);
  }
}
