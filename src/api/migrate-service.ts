import { invalidArgument } from '../base/errors.ts';
import { checkId } from '../base/ids.ts';
import { known } from '../grpc/enum-names.ts';
import type { VolumesHandlers } from '../grpc/generated/qshim/v1/Volumes.ts';
import { unary, type Edge } from '../grpc/handlers.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { operationMessage, targetFrom } from './convert.ts';

const PIVOTS = { PIVOT_AUTOMATIC: 'automatic', PIVOT_ASKED: 'asked' } as const;

/** Volumes.Migrate and Volumes.Pivot. */
export function migrateHandlers(manager: SandboxManager, edge: Edge): Pick<VolumesHandlers, 'Migrate' | 'Pivot'> {
  return {
    Migrate: unary(edge, 'Volumes.Migrate', async (request, { permit }) => {
      const { sandboxId, volumeId, operationId, createIfMissing, overwrite, speedBytesPerS } = request;
      if (operationId !== '') checkId('operation_id', operationId);
      if (!Number.isSafeInteger(speedBytesPerS)) {
        throw invalidArgument('speed_bytes_per_s', speedBytesPerS, 'is more than can be counted');
      }
      const pivot = known('pivot', PIVOTS, request.pivot);
      const asked = { operationId, createIfMissing, overwrite, pivot, speedBytesPerS };
      const { volume, operation } = await manager.migrate(
        sandboxId,
        volumeId,
        { ...asked, target: targetFrom(request) },
        permit.grant.roots,
      );
      return operationMessage(volume, operation);
    }),
    Pivot: unary(edge, 'Volumes.Pivot', async ({ sandboxId, volumeId }) => {
      const { volume, operation } = await manager.pivot(sandboxId, volumeId);
      return operationMessage(volume, operation);
    }),
  };
}
