import type { Problem } from './oracle.ts';

/** Counts and times of a run, and what is printed at its end. */
export class Figures {
  readonly #counts = new Map<string, number>();
  readonly #times = new Map<string, number[]>();
  readonly problems: Problem[] = [];
  readonly #started = performance.now();
  passed = 0;
  failed = 0;

  count(what: string, by = 1): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + by);
  }

  counted(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  time(what: string, milliseconds: number): void {
    const known = this.#times.get(what);
    if (known === undefined) this.#times.set(what, [milliseconds]);
    else known.push(milliseconds);
  }

  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  problemsOf(kind: Problem['kind']): number {
    return this.problems.filter((problem) => problem.kind === kind).length;
  }

  /** "kill: 12", one line for each count whose name begins with `prefix`. */
  counts(prefix: string): string {
    const parts = [...this.#counts].filter(([name]) => name.startsWith(prefix));
    return parts.map(([name, count]) => `${name.slice(prefix.length)} ${count}`).join(', ');
  }

  total(prefix: string): number {
    return [...this.#counts].filter(([name]) => name.startsWith(prefix)).reduce((sum, [, count]) => sum + count, 0);
  }

  /** One line for each kind of time whose name begins with `prefix`. */
  timesOf(prefix: string): readonly string[] {
    return [...this.#times.keys()]
      .filter((name) => name.startsWith(prefix))
      .map((name) => `${name}: ${this.times(name)}`);
  }

  /** "median 31 ms, p95 90 ms, worst 102 ms (57)". */
  times(what: string): string {
    const all = this.#times.get(what) ?? [];
    if (all.length === 0) return 'none';
    const at = (share: number): string => `${percentile(all, share).toFixed(0)} ms`;
    return `median ${at(0.5)}, p95 ${at(0.95)}, worst ${at(1)} (of ${all.length})`;
  }
}

/** The value that `share` of all are not above; 1 is the largest. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
}
