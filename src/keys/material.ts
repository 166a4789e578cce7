import { inspect } from 'node:util';
import { keyError } from './errors.ts';

/** The longest key that any source may give. */
export const KEY_BYTES_MAX = 8192;

const SHOWN = '[key material]';

/**
 * A key's bytes. They are in one Buffer, outside the pool that Node shares among small Buffers, never in a string, and
 * are zeroed when this is disposed of. Logged, printed or turned into JSON it shows nothing.
 */
export class KeyMaterial implements Disposable {
  #bytes: Buffer | undefined;

  private constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /**
   * Takes the bytes over by copying them and zeroing the original, whatever happens.
   * @throws ShimError FAILED_PRECONDITION: KEY_EMPTY, KEY_TOO_LONG (over 8192 bytes)
   */
  static take(bytes: Uint8Array): KeyMaterial {
    try {
      checkKeyLength(bytes.length);
      const own = Buffer.alloc(bytes.length);
      own.set(bytes);
      return new KeyMaterial(own);
    } finally {
      bytes.fill(0);
    }
  }

  /** 0 once disposed of. */
  get length(): number {
    return this.#bytes?.length ?? 0;
  }

  /**
   * Lends the bytes to `work`, which must not keep them: dispose only after it has settled, for they are zeroed then.
   * @throws ShimError INTERNAL/KEY_DISPOSED
   */
  use<T>(work: (bytes: Buffer) => T): T {
    if (this.#bytes === undefined) throw keyError('KEY_DISPOSED', 'the key has been disposed of');
    return work(this.#bytes);
  }

  [Symbol.dispose](): void {
    this.#bytes?.fill(0);
    this.#bytes = undefined;
  }

  toString(): string {
    return SHOWN;
  }

  toJSON(): string {
    return SHOWN;
  }

  [inspect.custom](): string {
    return SHOWN;
  }
}

/** @throws ShimError FAILED_PRECONDITION: KEY_EMPTY, KEY_TOO_LONG */
export function checkKeyLength(bytes: number, metadata: Readonly<Record<string, string>> = {}): void {
  if (bytes === 0) throw keyError('KEY_EMPTY', 'the key has no bytes', { metadata });
  if (bytes > KEY_BYTES_MAX) {
    throw keyError('KEY_TOO_LONG', `the key is longer than ${KEY_BYTES_MAX} bytes`, { metadata });
  }
}
