/** Batches and plans as people see them. */
import type { BatchResult__Output as BatchResult } from '../grpc/generated/qshim/v1/BatchResult.ts';
import type { Problem__Output as Problem } from '../grpc/generated/qshim/v1/Problem.ts';
import type { VolumePlan__Output as VolumePlan } from '../grpc/generated/qshim/v1/VolumePlan.ts';
import { visible } from '../base/visible.ts';
import { table } from './table.ts';
import { enumWord, NOTHING, orNothing } from './values.ts';

export function batchTable(results: readonly BatchResult[], widthMax: number | undefined): string {
  const rows = results.map(({ volumeId, volume, problem }) => [
    visible(volumeId),
    volume === null ? NOTHING : enumWord('VOLUME_STATE_', volume.state),
    orNothing(volume?.guestDevice),
    problem === null ? NOTHING : problemText(problem),
  ]);
  return table(['VOLUME', 'STATE', 'DEVICE', 'PROBLEM'], rows, widthMax);
}

/** One paragraph a volume: where it would sit, what would be said to QEMU, and what speaks against it. */
export function planText(plans: readonly VolumePlan[]): string {
  return plans.map(onePlan).join('\n');
}

function onePlan({ volumeId, pciPath, blockGraph, steps, problems }: VolumePlan): string {
  const lines = [`${visible(volumeId)}: ${pciPath === '' ? 'no slot' : `slot ${visible(pciPath)}`}`];
  if (blockGraph.length > 0) lines.push(`  ${blockGraph.map(visible).join(' > ')}`);
  for (const { kind, command, arguments: values } of steps) {
    lines.push(command === '' ? `  ${visible(kind)}` : `  ${visible(kind)}: ${visible(command)} ${visible(values)}`);
  }
  for (const problem of problems) lines.push(`  would fail: ${problemText(problem)}`);
  return lines.join('\n');
}

function problemText({ reason, message }: Problem): string {
  return `${visible(message)} (${visible(reason)})`;
}
