/** What the benchmark measures, and how it is shown. All pure. */

/** Samples of one quantity, in `unit`, by who was measured. */
export interface Row {
  readonly what: string;
  readonly unit: 'ms' | 'KiB' | '1/s' | 'IOPS' | 'MiB/s';
  readonly samples: Readonly<Record<string, readonly number[]>>;
}

/** `numerator` divided by `denominator`, medians of one row or of two. */
export interface Ratio {
  readonly what: string;
  readonly value: number;
  /** What the project promises: "at most" or "at least" this. None: only told. */
  readonly bar?: { readonly kind: 'at most' | 'at least'; readonly value: number };
}

export interface Section {
  readonly name: string;
  readonly title: string;
  readonly rows: readonly Row[];
  readonly ratios: readonly Ratio[];
  readonly notes: readonly string[];
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The smallest value that at least this share of the values does not exceed; NaN for none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** The ratio of the medians of two columns of a row. */
export function ratio(row: Row | undefined, numerator: string, denominator: string, bar?: Ratio['bar']): Ratio {
  const value = median(row?.samples[numerator] ?? []) / median(row?.samples[denominator] ?? []);
  return { what: `${row?.what ?? ''}: ${numerator} / ${denominator}`, value, ...(bar === undefined ? {} : { bar }) };
}

export function isMet({ value, bar }: Ratio): boolean | undefined {
  if (bar === undefined || Number.isNaN(value)) return undefined;
  return bar.kind === 'at most' ? value <= bar.value : value >= bar.value;
}

/** Collects samples by row and column, in the order in which they first come. */
export class Samples {
  readonly #rows = new Map<string, { readonly unit: Row['unit']; readonly samples: Map<string, number[]> }>();

  add(what: string, who: string, value: number, unit: Row['unit'] = 'ms'): void {
    const row = this.#rows.get(what) ?? { unit, samples: new Map<string, number[]>() };
    this.#rows.set(what, row);
    const values = row.samples.get(who) ?? [];
    row.samples.set(who, values);
    values.push(value);
  }

  rows(): readonly Row[] {
    return [...this.#rows].map(([what, { unit, samples }]) => ({ what, unit, samples: Object.fromEntries(samples) }));
  }

  row(what: string): Row | undefined {
    return this.rows().find((row) => row.what === what);
  }
}

/** A section as a Markdown table: median and p99 of every cell, and the ratios below it. */
export function sectionText({ title, rows, ratios, notes }: Section): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row.samples)))];
  const lines = [
    `### ${title}`,
    '',
    `| median (p99) | ${columns.join(' | ')} |`,
    `|---|${columns.map(() => '---|').join('')}`,
    ...rows.map(({ what, unit, samples }) => {
      const cells = columns.map((column) => cell(samples[column] ?? []));
      return `| ${what}, ${unit} | ${cells.join(' | ')} |`;
    }),
    '',
    ...ratios.map(ratioText),
    ...notes.map((note) => `- ${note}`),
  ];
  return `${lines.join('\n')}\n`;
}

function cell(values: readonly number[]): string {
  if (values.length === 0) return '';
  if (values.length === 1) return short(median(values));
  return `${short(median(values))} (${short(quantile(values, 0.99))})`;
}

function ratioText(given: Ratio): string {
  const met = isMet(given);
  const verdict = met === undefined ? '' : met ? ', met' : ', **missed**';
  const bar = given.bar === undefined ? '' : ` (${given.bar.kind} ${given.bar.value}${verdict})`;
  return `- ${given.what}: ${given.value.toFixed(2)}${bar}`;
}

function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}
