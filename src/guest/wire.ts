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
}

/** One line from the agent. `delimited`: it followed a 0xFF byte. `oversize`: its content was thrown away. */
export interface AgentLine {
  readonly kind: 'text' | 'oversize';
  readonly bytes: Buffer;
  readonly delimited: boolean;
}

const SENTINEL = 0xff;
const NEWLINE = 0x0a;

/** Cuts a byte stream into lines of at most `lineBytesMax` bytes; a 0xFF byte drops what stands before it. */
export class LineSplitter {
  readonly #lineBytesMax: number;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #delimited = false;
  #oversize = false;

  constructor(lineBytesMax: number) {
    this.#lineBytesMax = lineBytesMax;
  }

  push(chunk: Buffer): readonly AgentLine[] {
    const lines: AgentLine[] = [];
    let rest = chunk;
    while (rest.length > 0) {
      const newline = rest.indexOf(NEWLINE);
      const end = newline === -1 ? rest.length : newline;
      this.#take(rest.subarray(0, end));
      if (newline === -1) break;
      lines.push({
        kind: this.#oversize ? 'oversize' : 'text',
        bytes: Buffer.concat(this.#chunks),
        delimited: this.#delimited,
      });
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
    this.#bytes += piece.length;
    if (this.#bytes > this.#lineBytesMax) {
      this.#oversize = true;
      this.#chunks = [];
    } else if (piece.length > 0) {
      this.#chunks.push(piece);
    }
  }

  #restart(delimited: boolean): void {
    this.#chunks = [];
    this.#bytes = 0;
    this.#delimited = delimited;
    this.#oversize = false;
  }
}

/** `id` is undefined when the line carries none. */
export type AgentReply =
  | { readonly kind: 'return'; readonly id: unknown; readonly value: unknown }
  | { readonly kind: 'error'; readonly id: unknown; readonly errorClass: string; readonly description: string };

/** More commas, colons, brackets and backslashes are in no reply that means anything. */
const TOKENS_MAX = 250_000;
const TOKENS: ReadonlySet<number> = new Set(Buffer.from(',:[{\\'));

/** True when a line would keep JSON.parse, and with it the whole daemon, busy for long: seconds for 32 MiB of `[[[`. */
function isTangled(bytes: Buffer): boolean {
  if (bytes.length <= TOKENS_MAX) return false;
  let tokens = 0;
  for (const byte of bytes) {
    if (TOKENS.has(byte) && ++tokens > TOKENS_MAX) return true;
  }
  return false;
}

/** The reply in one line, or undefined when the line is no reply. The guest is not trusted: anything may come. */
export function parseReply(bytes: Buffer): AgentReply | undefined {
  if (isTangled(bytes)) return undefined;
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
