/**
 * `npm run faults`: every fault at every step of every plan, on a real QEMU with a real guest, and the faults that Kata
 * Containers has had. Prints the matrix, the reasons of what cannot be tried here, and what failed. The last line is
 * `N passed, N failed, N skipped`. `npm run faults -- --help` lists the options.
 */
import { availableParallelism } from 'node:os';
import { Command } from '@commander-js/extra-typings';
import Table from 'cli-table3';
import { KATA } from '../test/faults/kata.ts';
import { MATRIX, runCell, type CellResult, type MatrixCell } from '../test/faults/matrix.ts';
import { FaultRig } from '../test/faults/rig.ts';
import { ensureTestTools } from './lib/prepare.ts';

const LANES_MAX = 2;
const MINUTES_MAX = 30;

const command = new Command('npm run faults --')
  .description('Tries every fault at every step of every plan on a real VM, and prints the matrix.')
  .option('--only <text>', 'only cells whose fault or step contains this text')
  .option('--lanes <count>', 'VMs that are tried at once', String(Math.min(LANES_MAX, availableParallelism())))
  .option('--minutes <count>', 'cells that have not begun by then fail', String(MINUTES_MAX))
  .option('--verbose', 'name every cell as it ends')
  .parse();
const options = command.opts();

const results = new Map<MatrixCell, CellResult>();
const endMs = performance.now() + Number(options.minutes) * 60_000;

function wanted({ row, column }: MatrixCell): boolean {
  return options.only === undefined || row.includes(options.only) || column.includes(options.only);
}

/** Takes cells off the common queue until there are none, on a VM of its own. */
async function lane(queue: MatrixCell[]): Promise<void> {
  let rig: FaultRig | undefined;
  try {
    for (let cell = queue.shift(); cell !== undefined; cell = queue.shift()) {
      const started = performance.now();
      if (cell.cell.kind === 'real' && started < endMs) rig ??= await FaultRig.start();
      const result = await tryCell(rig, cell);
      results.set(cell, result);
      report(cell, result, performance.now() - started);
    }
  } finally {
    await rig?.[Symbol.asyncDispose]();
  }
}

async function tryCell(rig: FaultRig | undefined, cell: MatrixCell): Promise<CellResult> {
  if (cell.cell.kind === 'not here') return { kind: 'skipped', why: cell.cell.why };
  if (rig === undefined || performance.now() > endMs) {
    return { kind: 'failed', error: new Error(`not begun within ${options.minutes} minutes`) };
  }
  return await runCell(rig, cell);
}

function report(cell: MatrixCell, result: CellResult, milliseconds: number): void {
  if (result.kind === 'failed') {
    const text = (result.error.stack ?? result.error.message).replaceAll(/^/gm, '    ');
    console.log(`FAILED  ${cell.column} | ${cell.row} (${(milliseconds / 1000).toFixed(1)} s)\n${text}`);
  } else if (options.verbose === true && result.kind === 'passed') {
    console.log(`ok      ${cell.column} | ${cell.row} (${(milliseconds / 1000).toFixed(1)} s)`);
  }
}

function markOf(cell: MatrixCell | undefined): string {
  const result = cell === undefined ? undefined : results.get(cell);
  if (result === undefined) return '';
  return result.kind === 'passed' ? 'ok' : result.kind === 'failed' ? 'FAILED' : '-';
}

/** One table for each plan: faults down, steps across. */
function printMatrix(cells: readonly MatrixCell[]): void {
  for (const plan of new Set(cells.map(({ column }) => planOf(column)))) {
    const own = cells.filter(({ column }) => planOf(column) === plan);
    const columns = [...new Set(own.map(({ column }) => column))];
    const table = new Table({ head: [plan, ...columns.map(stepOf)], style: { head: [], border: [], compact: true } });
    for (const row of new Set(own.map((cell) => cell.row))) {
      table.push([
        row,
        ...columns.map((column) => markOf(own.find((one) => one.row === row && one.column === column))),
      ]);
    }
    console.log(`\n${table.toString()}`);
  }
}

function planOf(column: string): string {
  return column.split(': ', 1)[0] ?? column;
}

function stepOf(column: string): string {
  return column.split(': ').at(-1) ?? column;
}

/** Why cells marked "-" were not tried, each reason once. */
function printReasons(): void {
  const reasons = new Map<string, string[]>();
  for (const [cell, result] of results) {
    if (result.kind !== 'skipped') continue;
    const key = `${cell.row}: ${result.why}`;
    reasons.set(key, [...(reasons.get(key) ?? []), cell.column]);
  }
  if (reasons.size > 0) console.log('\nMarked "-", because it cannot be tried:');
  for (const [reason, columns] of reasons) console.log(`  ${reason} (${columns.join(', ')})`);
}

await ensureTestTools();
const cells = [...MATRIX, ...KATA].filter(wanted);
const queue = [...cells];
const started = performance.now();
await Promise.all(Array.from({ length: Number(options.lanes) }, () => lane(queue)));
printMatrix(cells);
printReasons();
const count = (kind: CellResult['kind']): number =>
  [...results.values()].filter((result) => result.kind === kind).length;
const minutes = ((performance.now() - started) / 60_000).toFixed(1);
console.log(`\n${results.size} cells in ${minutes} minutes`);
console.log(`${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`);
process.exitCode = count('failed') === 0 && results.size > 0 ? 0 : 1;
