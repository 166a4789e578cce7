import { monotonicMs } from '../base/deadline.ts';
import { visible } from '../base/visible.ts';

/** Shorter work shows nothing: a line that flashes up teaches nobody anything. */
const PROGRESS_DELAY_MS = 500;
const PROGRESS_INTERVAL_MS = 100;

const ERASE_LINE = '\r\u001b[K';

export interface ProgressTarget {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/**
 * One status line that is rewritten with the elapsed time while the owner works, and erased when it is disposed. It
 * writes nothing unless the target is a terminal and the work takes longer than half a second.
 */
export class Progress implements Disposable {
  readonly #target: ProgressTarget;
  readonly #label: string;
  readonly #startedMs = monotonicMs();
  readonly #timer: NodeJS.Timeout | undefined;
  #written = false;
  #far = '';

  constructor(target: ProgressTarget, label: string) {
    this.#target = target;
    this.#label = visible(label);
    if (target.isTTY !== true) return;
    this.#timer = setInterval(() => this.#tick(), PROGRESS_INTERVAL_MS);
    this.#timer.unref();
  }

  #tick(): void {
    const elapsedMs = monotonicMs() - this.#startedMs;
    if (elapsedMs < PROGRESS_DELAY_MS) return;
    const line = `${this.#label} ... ${this.#far}${(elapsedMs / 1000).toFixed(1)} s`;
    // A line that wraps cannot be erased with one control sequence.
    this.#target.write(ERASE_LINE + line.slice(0, (this.#target.columns ?? 80) - 1));
    this.#written = true;
  }

  /** How far the work is, from now on. */
  show(far: string): void {
    this.#far = far === '' ? '' : `${visible(far)}  `;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    if (this.#written) this.#target.write(ERASE_LINE);
    this.#written = false;
  }
}
