/** Following what the daemon does to a volume, to its end. */
import type { Operation__Output as Operation } from '../grpc/generated/qshim/v1/Operation.ts';
import { CliFailure } from './cli-failure.ts';
import { reasonRead } from '../base/reasons.ts';
import type { Connection } from './connection.ts';
import { EXIT, exitCodeOf } from './exit-codes.ts';
import { farText } from './operation-view.ts';
import { Progress } from './progress.ts';
import type { Session, Work } from './session.ts';

/** What a command is about that begins, or follows, an operation: an interruption leaves it to the daemon. */
export function operationWork(progress: string, sandboxId: string, operationId: string): Work {
  return { sandboxId, progress, lookAgain: `\`qshim operation get ${sandboxId} ${operationId}\`` };
}

/**
 * Waits for the end of an operation under a progress bar.
 * @returns how it ended; of one that ended already, at once
 * @throws CliFailure as the operation has failed, or CANCELLED when it was cancelled
 */
export async function followOperation(
  session: Session,
  api: Connection,
  begun: Pick<Operation, 'sandboxId' | 'operationId'>,
  label: string,
): Promise<Operation> {
  const { sandboxId, operationId } = begun;
  let last: Operation | undefined;
  using progress = session.json ? undefined : new Progress(session.surroundings.stderr, label);
  await api.stream<Operation>(
    (options) => api.operations.Watch({ sandboxId, operationId }, options),
    (operation) => {
      last = operation;
      progress?.show(farText(operation));
    },
  );
  if (last === undefined) throw new Error('the daemon told nothing of the operation');
  if (last.problem !== null) throw failureOfOperation(last.problem);
  if (last.state === 'OPERATION_STATE_CANCELLED') {
    throw new CliFailure('CANCELLED', `operation ${operationId} was cancelled; the volume is as it was`, {
      reason: 'OPERATION_CANCELLED',
      exitCode: EXIT.failed,
    });
  }
  return last;
}

function failureOfOperation({ code, reason, message, metadata }: NonNullable<Operation['problem']>): CliFailure {
  return new CliFailure(code, message, { reason: reasonRead(reason), exitCode: exitCodeOf(code, true), metadata });
}
