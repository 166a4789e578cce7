const EMPTY = Buffer.alloc(0);

/**
 * Finds the random token that ends a stream, however it is cut into chunks, and gives everything before it. Bytes that
 * may be the token's beginning are held back until the next chunk, or `rest`, decides.
 */
export class TokenCut {
  readonly #token: Buffer;
  #held: Buffer = EMPTY;

  constructor(token: string) {
    this.#token = Buffer.from(token, 'latin1');
  }

  /** What can be passed on; with `ended`, the token has come, and what follows it is dropped. */
  take(chunk: Buffer): { readonly bytes: Buffer; readonly ended: boolean } {
    const all = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const at = all.indexOf(this.#token);
    if (at !== -1) {
      this.#held = EMPTY;
      return { bytes: all.subarray(0, at), ended: true };
    }
    const keep = this.#heldBytes(all);
    // A copy: the chunk's memory is the socket's.
    this.#held = Buffer.from(all.subarray(all.length - keep));
    return { bytes: all.subarray(0, all.length - keep), ended: false };
  }

  /** How many bytes would make a token of what is held back; 0 when nothing is. */
  get missingBytes(): number {
    return this.#held.length === 0 ? 0 : this.#token.length - this.#held.length;
  }

  /** What is held back, when it is known that no token comes. */
  rest(): Buffer {
    const rest = this.#held;
    this.#held = EMPTY;
    return rest;
  }

  /** Length of the longest end of `bytes` with which the token begins. */
  #heldBytes(bytes: Buffer): number {
    const most = Math.min(this.#token.length - 1, bytes.length);
    for (let length = most; length > 0; length -= 1) {
      if (bytes.subarray(bytes.length - length).equals(this.#token.subarray(0, length))) return length;
    }
    return 0;
  }
}
