import { monotonicMs } from './deadline.ts';

/** How long one phase took, milliseconds. */
export interface Timing {
  readonly phase: string;
  readonly milliseconds: number;
}

/** Measures the phases of one operation, one after the other, in milliseconds. */
export class Stopwatch {
  readonly #timings: Timing[] = [];
  #phaseStartMs = monotonicMs();

  /** Ends the phase that has been running since the last lap (or since the beginning). */
  lap(phase: string): void {
    const now = monotonicMs();
    this.#timings.push({ phase, milliseconds: now - this.#phaseStartMs });
    this.#phaseStartMs = now;
  }

  get timings(): readonly Timing[] {
    return this.#timings.slice();
  }
}
