const FIRST_BYTES = 1024;
/** So much memory is kept for the next line; more is given back. */
const KEPT_BYTES = 64 * 1024;
const NONE = Buffer.alloc(0);

/**
 * Collects bytes in one piece of memory that grows by doubling: it costs at most twice the bytes, however small the
 * pieces are in which they come. (An array of Buffers, one for each read, costs some hundred bytes for each.)
 */
export class GrowingBuffer {
  #memory: Buffer = NONE;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** What has been collected, until the next call of any other method. */
  get bytes(): Buffer {
    return this.#memory.subarray(0, this.#length);
  }

  append(part: Buffer): void {
    const length = this.#length + part.length;
    if (length > this.#memory.length) {
      const memory = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, this.#memory.length * 2, length));
      this.#memory.copy(memory, 0, 0, this.#length);
      this.#memory = memory;
    }
    part.copy(this.#memory, this.#length);
    this.#length = length;
  }

  clear(): void {
    this.#length = 0;
    if (this.#memory.length > KEPT_BYTES) this.#memory = NONE;
  }
}
