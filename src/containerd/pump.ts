import { finished, type Readable, type Writable } from 'node:stream';
import type { LeftBytes } from '../base/fifo.ts';
import { written } from '../base/written.ts';

/** PIPE_BUF: a FIFO takes a write of this length as a whole, or not at all. */
const SLICE_BYTES = 4096;

/** A stream that can be left without losing what it has read ahead. */
export interface Leavable extends Readable {
  leave(): LeftBytes;
}

/**
 * Carries bytes from one FIFO into another. One write is in progress at a time, and it is one that a FIFO takes as a
 * whole or not at all: so it is known at every moment which bytes are delivered.
 */
export class Pump {
  readonly #from: Leavable;
  readonly #to: Writable;
  readonly #moved: () => void;
  #pending: Buffer;
  #ended: boolean;
  #left = false;
  #stir = Promise.withResolvers<void>();

  /** @param before what an earlier daemon could not deliver. @param moved called after each delivery */
  constructor(from: Leavable, to: Writable, before: LeftBytes, moved: () => void = () => undefined) {
    this.#from = from;
    this.#to = to;
    this.#pending = before.bytes;
    this.#ended = before.ended;
    this.#moved = moved;
  }

  /**
   * @returns true once all is delivered, to the end; false when it was left before.
   * @throws what either stream failed with
   */
  async run(): Promise<boolean> {
    await this.#deliver();
    if (!this.#ended && !this.#left) await this.#carry();
    return this.#ended;
  }

  /** Reads no more. `run` goes on to deliver what was read. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    const rest = this.#from.leave();
    this.#pending = Buffer.concat([this.#pending, rest.bytes]);
    this.#ended ||= rest.ended;
    this.#wake();
  }

  /** What is not delivered by now. Destroy the target in the same breath. */
  get undelivered(): LeftBytes {
    return { bytes: this.#pending, ended: this.#ended };
  }

  async #carry(): Promise<void> {
    const from = this.#from;
    const wake = (): void => this.#wake();
    from.on('readable', wake);
    const unfollow = [finished(from, { writable: false }, wake), finished(this.#to, { readable: false }, wake)];
    try {
      while (!this.#ended && !this.#left) {
        this.#pending = (from.read() as Buffer | null) ?? this.#pending;
        if (this.#pending.length === 0) await this.#more();
        await this.#deliver();
      }
    } finally {
      from.off('readable', wake);
      for (const each of unfollow) each();
    }
  }

  #wake(): void {
    this.#stir.resolve();
    this.#stir = Promise.withResolvers();
  }

  async #more(): Promise<void> {
    const from = this.#from;
    if (from.errored !== null) throw from.errored;
    if (this.#to.destroyed) throw this.#to.errored ?? new Error('nobody takes it any more');
    if (from.readableEnded) this.#ended = true;
    else if (from.destroyed) throw new Error('closed before its end');
    else await this.#stir.promise;
  }

  async #deliver(): Promise<void> {
    while (this.#pending.length > 0) {
      const slice = this.#pending.subarray(0, SLICE_BYTES);
      await written(this.#to, slice);
      this.#pending = this.#pending.subarray(slice.length);
      this.#moved();
    }
  }
}
