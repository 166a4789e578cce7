/** Operations as people see them. */
import type { Operation__Output as Operation } from '../grpc/generated/qshim/v1/Operation.ts';
import { visible } from '../base/visible.ts';
import { table } from './table.ts';
import { bytesText, enumWord, NOTHING, orNothing, timestampOrNothing } from './values.ts';

const BAR_WIDTH = 20;

export const operationState = (operation: Operation): string => enumWord('OPERATION_STATE_', operation.state);

export function operationTable(operations: readonly Operation[], widthMax: number | undefined): string {
  const head = ['SANDBOX', 'VOLUME', 'OPERATION', 'KIND', 'STATE', 'PROGRESS', 'STARTED', 'PROBLEM'];
  const rows = operations.map((operation) => [
    visible(operation.sandboxId),
    visible(operation.volumeId),
    visible(operation.operationId),
    visible(operation.kind),
    operationState(operation),
    orNothing(farText(operation)),
    timestampOrNothing(operation.startedAt),
    problemText(operation),
  ]);
  return table(head, rows, widthMax);
}

export function operationSheet(operation: Operation, widthMax: number | undefined): string {
  const rows = [
    ['operation', visible(operation.operationId)],
    ['kind', visible(operation.kind)],
    ['sandbox', visible(operation.sandboxId)],
    ['volume', `${visible(operation.volumeId)} (generation ${operation.generation})`],
    ['state', operationState(operation)],
    ['progress', orNothing(farText(operation))],
    ['problem', problemText(operation)],
    ['cancel', cancelText(operation)],
    ['started', timestampOrNothing(operation.startedAt)],
    ['ended', timestampOrNothing(operation.endedAt)],
  ];
  return table([], rows, widthMax);
}

/** One line, for watching. */
export function operationLine(operation: Operation): string {
  const { sandboxId, volumeId, kind, operationId } = operation;
  const subject = `${visible(sandboxId)}/${visible(volumeId)}  ${visible(kind)} ${visible(operationId)}`;
  const rest = [farText(operation), problemText(operation)].filter((text) => text !== '' && text !== NOTHING);
  return [subject, operationState(operation), ...rest].join('  ');
}

/** How far it is: "copying [#####...............] 27 %, 1.2 GiB of 4.5 GiB". Empty when that is not known. */
export function farText({ phase, current, total }: Operation): string {
  if (total === 0) return visible(phase);
  const part = Math.min(1, current / total);
  const full = Math.floor(part * BAR_WIDTH);
  const bar = `[${'#'.repeat(full)}${'.'.repeat(BAR_WIDTH - full)}]`;
  const far = `${bar} ${Math.floor(part * 100)} %, ${bytesText(current)} of ${bytesText(total)}`;
  return phase === '' ? far : `${visible(phase)} ${far}`;
}

function problemText({ problem }: Operation): string {
  return problem === null ? NOTHING : visible(`${problem.reason}: ${problem.message}`);
}

function cancelText({ cancelAsked, cancellable, endedAt }: Operation): string {
  if (endedAt !== null) return NOTHING;
  if (cancelAsked) return 'asked for';
  return cancellable ? 'possible' : 'not possible, it ends by itself';
}
