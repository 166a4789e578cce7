import type { Timing__Output as Timing } from '../grpc/generated/qshim/v1/Timing.ts';
import { table } from './table.ts';
import { visible } from '../base/visible.ts';
import { durationText } from './values.ts';

/** The phases of an operation as a small table below a sheet, or nothing. */
export function timingsSheet(timings: readonly Timing[]): string {
  if (timings.length === 0) return '';
  const rows = timings.map(({ phase, milliseconds }) => [visible(phase), durationText(milliseconds)]);
  return `\n\n${table(['PHASE', 'TIME'], rows)}`;
}
