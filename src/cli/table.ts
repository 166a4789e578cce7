/** Plain aligned columns for people, without borders, on cli-table3. */
import Table from 'cli-table3';

const COLUMN_GAP = 2;
/** A column is not squeezed below this, even if the lines then wrap. */
const COLUMN_WIDTH_MIN = 8;

const BARE = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: ' '.repeat(COLUMN_GAP),
};

/**
 * Lays out rows under a heading (none when `head` is empty). With `widthMax` (columns of a terminal), the widest
 * columns are cut with an ellipsis until the lines fit; without it nothing is ever cut.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[], widthMax?: number): string {
  const all = head.length === 0 ? rows : [head, ...rows];
  const natural = layOut(all, []);
  const fits = widthMax === undefined || natural.every((line) => line.length <= widthMax);
  return (fits ? natural : layOut(all, fit(all, widthMax))).join('\n');
}

function layOut(rows: readonly (readonly string[])[], colWidths: number[]): string[] {
  const layout = new Table({
    chars: BARE,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [], compact: true },
    colWidths,
  });
  layout.push(...rows.map((row) => [...row]));
  return layout
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
}

/** Column widths that keep lines within `widthMax`, as far as the narrowest columns allow. */
function fit(rows: readonly (readonly string[])[], widthMax: number): number[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 1, cell.length);
  }
  const fitted = [...widths];
  const room = widthMax - COLUMN_GAP * (widths.length - 1);
  for (let excess = sum(fitted) - room; excess > 0; excess -= 1) {
    const widest = fitted.indexOf(Math.max(...fitted));
    const width = fitted[widest] ?? 0;
    if (width <= COLUMN_WIDTH_MIN) break;
    fitted[widest] = width - 1;
  }
  return fitted;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
