import { constants, type ServerHttp2Stream } from 'node:http2';
import { monotonicMs } from '../base/deadline.ts';

/**
 * What requests cost that have not come whole. grpc-js keeps what came of a message for as long as the rest does not:
 * without a time limit, in as many pieces as the caller likes, and each piece keeps the whole buffer of its read from
 * the socket.
 */

export interface UnfinishedLimits {
  /** From the call's begin to the end of its first message; for later ones from their first byte. Milliseconds. */
  readonly messageMs: number;
  /** Memory that the unfinished messages of all callers may hold; one caller may have half of it. */
  readonly bytesMax: number;
  /** Streams that one caller may have open, of whatever kind. */
  readonly streamsMax: number;
}

/** "Length-Prefixed-Message" of gRPC's PROTOCOL-HTTP2.md: a flag and a length of four bytes. */
const PREFIX_BYTES = 5;
/** What a piece costs beside the buffer that it lies in: its objects in V8. */
const PIECE_BYTES = 256;
/** Messages in one DATA frame, of 16 KiB at most: grpc-js decodes all of them before it takes a breath. */
const MESSAGES_A_PIECE_MAX = 256;
const SWEEPS_A_LIMIT = 4;

interface Account {
  streams: number;
  bytes: number;
}

/** Watches all streams of a server. */
export class Unfinished implements Disposable {
  readonly #limits: UnfinishedLimits;
  readonly #accounts = new Map<string, Account>();
  readonly #pending = new Set<Reader>();
  readonly #sweeper: NodeJS.Timeout;
  #bytes = 0;

  constructor(limits: UnfinishedLimits) {
    this.#limits = limits;
    this.#sweeper = setInterval(() => this.#sweep(), Math.max(10, limits.messageMs / SWEEPS_A_LIMIT));
    this.#sweeper.unref();
  }

  /** Memory that unfinished messages hold now. */
  get bytes(): number {
    return this.#bytes;
  }

  /** To be called for each stream before it is served. */
  watch(stream: ServerHttp2Stream, caller: string): void {
    const account = this.#accounts.get(caller) ?? { streams: 0, bytes: 0 };
    this.#accounts.set(caller, account);
    account.streams += 1;
    const end = (): void => stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    const reader = new Reader(end);
    this.#pending.add(reader);
    stream.once('close', () => {
      this.#pending.delete(reader);
      this.#count(account, reader.forget());
      account.streams -= 1;
      if (account.streams === 0) this.#accounts.delete(caller);
    });
    stream.on('end', () => this.#pending.delete(reader));
    if (account.streams > this.#limits.streamsMax) {
      // Not at once: grpc-js has not seen the stream yet, and answers one that is closed with an exception.
      setImmediate(end);
      return;
    }
    stream.on('data', (piece: Buffer) => {
      const { bytes, messages } = reader.take(piece);
      this.#count(account, bytes);
      if (reader.unfinished) this.#pending.add(reader);
      else this.#pending.delete(reader);
      const { bytesMax } = this.#limits;
      const tooMuch = bytes > 0 && (this.#bytes > bytesMax || account.bytes > bytesMax / 2);
      if (tooMuch || messages > MESSAGES_A_PIECE_MAX) end();
    });
    // A listener sets a stream flowing, and grpc-js is not there yet: it resumes the stream itself.
    stream.pause();
  }

  #count(account: Account, bytes: number): void {
    account.bytes += bytes;
    this.#bytes += bytes;
  }

  #sweep(): void {
    const before = monotonicMs() - this.#limits.messageMs;
    for (const reader of this.#pending) if (reader.sinceMs < before) reader.end();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sweeper);
  }
}

/** Follows the messages of one stream by their prefixes. */
class Reader {
  /** Ends the stream. */
  readonly end: () => void;
  /** Since when the message is awaited that is not there. */
  sinceMs = monotonicMs();
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  #prefixBytes = 0;
  #left = 0;
  /** Buffers that the pieces of the unfinished message lie in: several pieces may share one. */
  readonly #buffers = new Set<ArrayBufferLike>();
  #bytes = 0;

  constructor(end: () => void) {
    this.end = end;
  }

  get unfinished(): boolean {
    return this.#prefixBytes > 0;
  }

  /** @returns by how much the cost of what is unfinished has grown, and how many messages were finished */
  take(piece: Buffer): { readonly bytes: number; readonly messages: number } {
    const before = this.#bytes;
    let messages = 0;
    let at = 0;
    while (at < piece.length) {
      if (this.#prefixBytes === 0) this.sinceMs = monotonicMs();
      if (this.#prefixBytes < PREFIX_BYTES) {
        const taken = piece.copy(this.#prefix, this.#prefixBytes, at, at + PREFIX_BYTES - this.#prefixBytes);
        this.#prefixBytes += taken;
        at += taken;
        if (this.#prefixBytes < PREFIX_BYTES) break;
        this.#left = this.#prefix.readUInt32BE(1);
      }
      const taken = Math.min(this.#left, piece.length - at);
      this.#left -= taken;
      at += taken;
      if (this.#left > 0) break;
      messages += 1;
      this.#forgetMessage();
    }
    if (this.unfinished) this.#keep(piece);
    return { bytes: this.#bytes - before, messages };
  }

  #keep(piece: Buffer): void {
    this.#bytes += PIECE_BYTES;
    if (this.#buffers.has(piece.buffer)) return;
    this.#buffers.add(piece.buffer);
    this.#bytes += piece.buffer.byteLength;
  }

  #forgetMessage(): void {
    this.#prefixBytes = 0;
    this.#left = 0;
    this.#buffers.clear();
    this.#bytes = 0;
  }

  /** @returns by how much the cost has changed: everything is forgotten */
  forget(): number {
    const bytes = -this.#bytes;
    this.#forgetMessage();
    return bytes;
  }
}
