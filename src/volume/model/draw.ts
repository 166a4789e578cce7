import { z } from 'zod';
import { invalidArgument } from '../../base/errors.ts';
import { checkId } from '../../base/ids.ts';

export const drawSchema = z.object({ budget: z.string(), share: z.int() }).readonly();

/** That a volume draws on a budget of the daemon's (sandbox/io-budgets.ts), and its weight among those that do. */
export type Draw = z.infer<typeof drawSchema>;

const SHARE_MAX = 1000;

/** As callers say it; 0 and empty: nothing is said. */
export interface RequestedDraw {
  readonly budget: string;
  readonly share: number;
}

export const NO_DRAW: RequestedDraw = { budget: '', share: 0 };

/**
 * @param field what the request calls it: "limits", "spec.limits"
 * @param limited it asks for limits of its own, too
 * @returns undefined for a volume that draws on no budget
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function completeDraw(requested: RequestedDraw, field: string, limited: boolean): Draw | undefined {
  const { budget, share } = requested;
  if (budget === '') {
    if (share !== 0) throw invalidArgument(`${field}.share`, share, 'is a share of a budget: name one');
    return undefined;
  }
  checkId(`${field}.budget`, budget);
  if (limited) throw invalidArgument(`${field}.budget`, budget, 'cannot be together with limits of its own');
  if (share > SHARE_MAX) throw invalidArgument(`${field}.share`, share, `must be from 1 to ${SHARE_MAX}, or 0 for 1`);
  return { budget, share: share === 0 ? 1 : share };
}
