import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { ShimError, errnoOf, messageOf } from '../base/errors.ts';

/**
 * The budgets of I/O that the daemon has, in a file of its state directory. Volumes say in their own records what they
 * draw on.
 */

export const BUDGETS_FILE = '.io-budgets.json';

const budgetSchema = z.object({ name: z.string(), iops: z.int().min(0), bps: z.int().min(0) }).readonly();
const fileSchema = z.object({ version: z.literal(1), budgets: z.array(budgetSchema) });

/** Totals a second; 0 is no limit. */
export type IoBudget = z.infer<typeof budgetSchema>;

/** @returns none when there is no such file @throws Error for one that cannot be understood: it stays as it is */
export async function readBudgets(path: string): Promise<readonly IoBudget[]> {
  try {
    return fileSchema.parse(JSON.parse(await readFile(path, 'utf8'))).budgets;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw new Error(`${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** @throws ShimError UNAVAILABLE / JOURNAL_WRITE_FAILED */
export async function writeBudgets(path: string, budgets: readonly IoBudget[]): Promise<void> {
  try {
    await writeAtomically(path, JSON.stringify({ version: 1, budgets }));
  } catch (error) {
    throw new ShimError('UNAVAILABLE', `cannot write ${path}: ${messageOf(error)}`, {
      reason: 'JOURNAL_WRITE_FAILED',
      metadata: { path, errno: errnoOf(error) ?? '' },
      cause: error,
    });
  }
}
