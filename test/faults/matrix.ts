import { NotHere, type Fault } from './cell.ts';
import { createCell } from './create-cell.ts';
import { FAULTS } from './faults.ts';
import type { FaultRig } from './rig.ts';
import { isEvent, stepName, STEPS, type Moment, type Step } from './steps.ts';
import { volumeCell } from './volume-cell.ts';

/** How a cell is tried: on a real QEMU with a real guest, or why not. */
export type Cell =
  | { readonly kind: 'real'; readonly run: (rig: FaultRig) => Promise<void> }
  | { readonly kind: 'not here'; readonly why: string };

export interface MatrixCell {
  readonly row: string;
  readonly column: string;
  readonly cell: Cell;
}

/** What came of a cell. */
export type CellResult =
  | { readonly kind: 'passed' }
  | { readonly kind: 'failed'; readonly error: Error }
  | { readonly kind: 'skipped'; readonly why: string };

/** The table: every fault at every step. */
export const MATRIX: readonly MatrixCell[] = STEPS.flatMap((step) =>
  FAULTS.map((fault) => ({ row: fault.name, column: stepName(step), cell: cellOf(step, fault) })),
);

function cellOf(step: Step, fault: Fault): Cell {
  const why = fault.whyNot(step);
  if (why !== undefined) return { kind: 'not here', why };
  const run = step.plan === 'create' ? createCell : volumeCell;
  return {
    kind: 'real',
    run: async (rig) => {
      for (const moment of momentsOf(step, fault)) await run(rig, step, fault, moment);
    },
  };
}

/** An event and a process have one moment only. */
function momentsOf(step: Step, fault: Fault): readonly Moment[] {
  return isEvent(step) || step.on === 'process' ? ['asked'] : fault.moments;
}

const CELL_TIMEOUT_MS = 180_000;

/** Runs one cell on a rig. After a failure the rig is cleared, so that the next cell begins afresh. */
export async function runCell(rig: FaultRig, { cell }: MatrixCell): Promise<CellResult> {
  if (cell.kind === 'not here') return { kind: 'skipped', why: cell.why };
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`not done within ${CELL_TIMEOUT_MS} ms`)), CELL_TIMEOUT_MS);
  try {
    await Promise.race([cell.run(rig), promise]);
    return { kind: 'passed' };
  } catch (error) {
    if (error instanceof NotHere) return { kind: 'skipped', why: error.message };
    await rig.clear();
    return { kind: 'failed', error: error instanceof Error ? error : new Error(String(error)) };
  } finally {
    clearTimeout(timer);
  }
}
