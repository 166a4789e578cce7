import { GrowingBuffer } from '../base/growing-buffer.ts';

/**
 * What goes over the wire to qemu-guest-agent (QGA): one JSON object a line, no events. The agent
 * repeats a request's `id` in its reply (since QEMU 4.0), but not in the error it sends for input that it cannot parse.
 * The byte 0xFF, which can occur in no UTF-8 text, separates what is known from what is left over (QAPI:
 * guest-sync-delimited). To the agent itself 0xFF is a syntax error, so it answers each with an error line, before the
 * delimited reply.
 */

/** The agent answered with an error of its own (`{"error": {"class", "desc"}}`). */
export class GuestAgentError extends Error {
  readonly errorClass: string;
  readonly command: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`the guest agent refused ${command}: ${description}`);
    this.name = 'GuestAgentError';
    this.command = command;
    this.errorClass = errorClass;
  }

  /** The guest had no process or no memory left for what was asked: EAGAIN or ENOMEM, in GLib's words. */
  get outOfProcesses(): boolean {
    return /Failed to fork|Resource temporarily unavailable|Cannot allocate memory/.test(this.message);
  }
}

/**
 * One line from the agent. `delimited`: it followed a 0xFF byte. `oversize`: it was longer than what was expected, and
 * its content was thrown away. The memory of `bytes` is valid during the call that hands it over, and no longer.
 */
export interface AgentLine {
  readonly kind: 'text' | 'oversize';
  readonly bytes: Buffer;
  readonly delimited: boolean;
}

/** How long the next lines may be. What is longer is thrown away as it comes. */
export interface LineLimit {
  /** Bytes as they come. */
  readonly lineBytesMax: number;
  /**
   * Strings are cut to so many bytes, whatever they are on the wire; the rest of the line must be `restBytesMax` or
   * less. For replies that hold the output of a program: the agent sends all that it has, and cannot be asked for less.
   */
  readonly strings?: { readonly bytesMax: number; readonly restBytesMax: number };
}

const SENTINEL = 0xff;
const NEWLINE = 0x0a;

/**
 * Cuts a byte stream into lines; a 0xFF byte drops what stands before it. It keeps what `limit` allows of one line, in
 * one piece of memory, and nothing of a chunk.
 */
export class LineSplitter {
  #limit: LineLimit;
  readonly #kept = new GrowingBuffer();
  readonly #cutter = new StringCutter((bytes) => this.#keep(bytes));
  /** Of the line that is under way, with what was thrown away. */
  #bytes = 0;
  #delimited = false;
  #oversize = false;

  constructor(lineBytesMax: number) {
    this.#limit = { lineBytesMax };
  }

  /** From the next bytes on. */
  expect(limit: LineLimit): void {
    this.#limit = limit;
  }

  /** @returns how many lines were handed over */
  push(chunk: Buffer, take: (line: AgentLine) => void): number {
    let lines = 0;
    let rest = chunk;
    while (rest.length > 0) {
      const newline = rest.indexOf(NEWLINE);
      const end = newline === -1 ? rest.length : newline;
      this.#take(rest.subarray(0, end));
      if (newline === -1) break;
      lines += 1;
      const kind = this.#oversize ? 'oversize' : 'text';
      take({ kind, bytes: this.#kept.bytes, delimited: this.#delimited });
      this.#restart(false);
      rest = rest.subarray(newline + 1);
    }
    return lines;
  }

  #take(part: Buffer): void {
    let piece = part;
    const sentinel = piece.lastIndexOf(SENTINEL);
    if (sentinel !== -1) {
      this.#restart(true);
      piece = piece.subarray(sentinel + 1);
    }
    const { lineBytesMax, strings } = this.#limit;
    this.#bytes += piece.length;
    if (this.#bytes > lineBytesMax) this.#dropLine();
    if (this.#oversize || piece.length === 0) return;
    if (strings === undefined) this.#kept.append(piece);
    else if (!this.#cutter.push(piece, strings.bytesMax, strings.restBytesMax)) this.#dropLine();
  }

  #keep(bytes: Buffer): void {
    this.#kept.append(bytes);
  }

  #dropLine(): void {
    this.#oversize = true;
    this.#kept.clear();
  }

  #restart(delimited: boolean): void {
    this.#kept.clear();
    this.#cutter.restart();
    this.#bytes = 0;
    this.#delimited = delimited;
    this.#oversize = false;
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Copies one line of JSON without what its strings have beyond a number of bytes. */
class StringCutter {
  readonly #keep: (bytes: Buffer) => void;
  #inString = false;
  /** The next byte stands behind a backslash. */
  #escaped = false;
  #stringBytes = 0;
  #restBytes = 0;

  constructor(keep: (bytes: Buffer) => void) {
    this.#keep = keep;
  }

  restart(): void {
    this.#inString = false;
    this.#escaped = false;
    this.#restBytes = 0;
  }

  /** @returns false when there is more than `restBytesMax` that is in no string, or is the escapes in them */
  push(part: Buffer, stringBytesMax: number, restBytesMax: number): boolean {
    let from = 0;
    let quote = part.indexOf(QUOTE);
    let backslash = part.indexOf(BACKSLASH);
    while (from < part.length && this.#restBytes <= restBytesMax) {
      if (quote !== -1 && quote < from) quote = part.indexOf(QUOTE, from);
      if (backslash !== -1 && backslash < from) backslash = part.indexOf(BACKSLASH, from);
      if (this.#escaped) {
        this.#escaped = false;
        this.#takeRest(part.subarray(from, from + 1));
        from += 1;
        continue;
      }
      const isEscape = this.#inString && backslash !== -1 && (quote === -1 || backslash < quote);
      const mark = isEscape ? backslash : quote;
      const until = mark === -1 ? part.length : mark;
      const piece = part.subarray(from, until);
      if (this.#inString) this.#takeString(piece, stringBytesMax);
      else this.#takeRest(piece);
      from = until;
      if (mark === -1) break;
      this.#takeRest(part.subarray(mark, mark + 1));
      if (isEscape) this.#escaped = true;
      else this.#inString = !this.#inString;
      this.#stringBytes = isEscape ? this.#stringBytes : 0;
      from += 1;
    }
    return this.#restBytes <= restBytesMax;
  }

  #takeString(piece: Buffer, bytesMax: number): void {
    const room = Math.max(0, bytesMax - this.#stringBytes);
    this.#stringBytes += piece.length;
    if (room > 0) this.#keep(piece.subarray(0, room));
  }

  #takeRest(piece: Buffer): void {
    this.#restBytes += piece.length;
    this.#keep(piece);
  }
}

/** `id` is undefined when the line carries none. */
export type AgentReply =
  | { readonly kind: 'return'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: unknown; readonly errorClass: string; readonly description: string };

/** More commas, colons, brackets and backslashes are in no reply that means anything. */
const TOKENS_MAX = 250_000;
const IS_TOKEN = new Uint8Array(256);
for (const byte of Buffer.from(',:[{\\')) IS_TOKEN[byte] = 1;

/** True when a line would keep JSON.parse, and with it the daemon, busy for long: seconds for 32 MiB of `[[[`. */
function isTangled(bytes: Buffer): boolean {
  if (bytes.length <= TOKENS_MAX) return false;
  let tokens = 0;
  for (const byte of bytes) tokens += IS_TOKEN[byte] ?? 0;
  return tokens > TOKENS_MAX;
}

/**
 * The reply in one line, or undefined when the line is no reply. The guest is not trusted: anything may come.
 * @param isCut its strings were cut, and all else in it is known to be short
 */
export function parseReply(bytes: Buffer, isCut = false): AgentReply | undefined {
  if (!isCut && isTangled(bytes)) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const id = 'id' in value ? value.id : undefined;
  if ('return' in value) return { kind: 'return', id, value: value.return };
  if (!('error' in value) || typeof value.error !== 'object' || value.error === null) return undefined;
  const error: object = value.error;
  return {
    kind: 'error',
    id,
    errorClass: 'class' in error && typeof error.class === 'string' ? error.class : 'GenericError',
    description: 'desc' in error && typeof error.desc === 'string' ? error.desc.slice(0, 500) : 'no description',
  };
}

/** One command, before it is a line. `bytes` is an argument that must never become a JavaScript string. */
export interface AgentCommand {
  readonly name: string;
  readonly args?: Readonly<Record<string, unknown>>;
  readonly bytes?: { readonly field: string; readonly value: Uint8Array };
}

/**
 * A command as one line. An argument in `bytes` is written as base64 straight into the Buffer: a JavaScript string
 * could not be wiped, but the caller can zero the line once it is written.
 */
export function commandLine(command: AgentCommand, id: number): Buffer {
  const { name, args, bytes } = command;
  if (bytes === undefined) {
    return Buffer.from(`${JSON.stringify({ execute: name, id, ...(args && { arguments: args }) })}\n`);
  }
  const others = JSON.stringify(args ?? {}).slice(1, -1);
  const separator = others === '' ? '' : ',';
  const head = `{"execute":${JSON.stringify(name)},"id":${id},"arguments":{${others}${separator}"${bytes.field}":"`;
  const tail = '"}}\n';
  const headBytes = Buffer.byteLength(head);
  const line = Buffer.allocUnsafeSlow(headBytes + base64Length(bytes.value.length) + tail.length);
  line.write(head, 0);
  line.write(tail, writeBase64(bytes.value, line, headBytes));
  return line;
}

/** The line that asks the agent to drop its half-read input and to mark its next reply with 0xFF and `id`. */
export function syncLine(id: number): Buffer {
  return Buffer.concat([
    Buffer.of(SENTINEL),
    Buffer.from(`{"execute":"guest-sync-delimited","arguments":{"id":${id}}}\n`),
  ]);
}

const BASE64 = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/');
const PAD = 0x3d;

function base64Length(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}

/** Writes `source` as base64 into `target` at `offset`; returns the offset after it. */
function writeBase64(source: Uint8Array, target: Buffer, offset: number): number {
  let at = offset;
  const digit = (value: number): void => {
    target[at++] = BASE64[value & 63] ?? PAD;
  };
  for (let index = 0; index < source.length; index += 3) {
    const present = Math.min(3, source.length - index);
    const triple = ((source[index] ?? 0) << 16) | ((source[index + 1] ?? 0) << 8) | (source[index + 2] ?? 0);
    digit(triple >> 18);
    digit(triple >> 12);
    if (present > 1) digit(triple >> 6);
    else target[at++] = PAD;
    if (present > 2) digit(triple);
    else target[at++] = PAD;
  }
  return at;
}
