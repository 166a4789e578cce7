/** Bytes of a guest's as text that does nothing to a terminal. */
import { StringDecoder } from 'node:string_decoder';
import { visibleLines } from '../base/visible.ts';

/**
 * Takes bytes as they come, cut anywhere, and gives text: UTF-8, with everything escaped that is neither to be seen nor
 * a line feed or a tab. A carriage return before a line feed is part of the line's end; any other would let what
 * follows overwrite what was said.
 */
export class TerminalText {
  readonly #decoder = new StringDecoder('utf8');
  #held = '';

  write(bytes: Uint8Array): string {
    return this.#take(this.#decoder.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)));
  }

  /** What was held back, when no more comes. */
  end(): string {
    const rest = this.#held + this.#decoder.end();
    this.#held = '';
    return visibleLines(rest);
  }

  #take(text: string): string {
    const all = this.#held + text;
    this.#held = all.endsWith('\r') ? '\r' : '';
    return visibleLines(all.slice(0, all.length - this.#held.length).replaceAll('\r\n', '\n'));
  }
}
