import { createHash } from 'node:crypto';

/**
 * Pseudo-random numbers that a seed repeats: sfc32, started from the SHA-256 of seed and label. Every step of a soak
 * has a generator of its own (label: the step), so that what one step drew never shifts what the next one draws.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, label: string) {
    const hash = createHash('sha256').update(`${seed}/${label}`).digest();
    this.#a = hash.readUInt32LE(0);
    this.#b = hash.readUInt32LE(4);
    this.#c = hash.readUInt32LE(8);
  }

  /** An integer from 0 to 2^32 - 1. */
  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) >>> 0;
    return sum;
  }

  /** From 0 to just below 1. */
  fraction(): number {
    return this.uint32() / 2 ** 32;
  }

  /** An integer from 0 to `limit - 1`. */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  /** One of the values; a weight of 3 is drawn three times as often as one of 1. */
  weighted<T>(choices: readonly (readonly [weight: number, value: T])[]): T {
    let left = this.fraction() * choices.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, value] of choices) {
      left -= weight;
      if (left < 0) return value;
    }
    throw new Error('nothing to choose from');
  }

  /** `count` different integers below `limit`, in random order; all of them when there are fewer. */
  distinct(count: number, limit: number): readonly number[] {
    const all = Array.from({ length: limit }, (_, index) => index);
    for (let index = all.length - 1; index > 0; index -= 1) {
      const other = this.below(index + 1);
      const [one, two] = [all[index], all[other]];
      if (one === undefined || two === undefined) throw new Error('index out of range');
      all[index] = two;
      all[other] = one;
    }
    return all.slice(0, count);
  }

  bytes(length: number): Buffer {
    const buffer = Buffer.alloc(length);
    for (let offset = 0; offset + 4 <= length; offset += 4) buffer.writeUInt32LE(this.uint32(), offset);
    return buffer;
  }
}
