import type { StaleCopy as StaleCopyMessage } from '../grpc/generated/qshim/v1/StaleCopy.ts';
import type { VolumesHandlers } from '../grpc/generated/qshim/v1/Volumes.ts';
import { unary, type Edge } from '../grpc/handlers.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import type { StaleCopy } from '../volume/stale-copies.ts';
import { timestamp } from './timestamp.ts';

/** The calls of the Volumes service that are about what failovers have left behind. */
export function staleCopiesHandlers(
  { staleCopies }: Pick<SandboxManager, 'staleCopies'>,
  edge: Edge,
): Pick<VolumesHandlers, 'ListStaleCopies' | 'ReleaseStaleCopy'> {
  return {
    ListStaleCopies: unary(edge, 'Volumes.ListStaleCopies', () =>
      Promise.resolve({ copies: staleCopies.list().map(messageOf) }),
    ),
    ReleaseStaleCopy: unary(edge, 'Volumes.ReleaseStaleCopy', async ({ path }) =>
      messageOf(await staleCopies.release(path)),
    ),
  };
}

function messageOf({ path, currentPath, sandboxId, volumeId, generation, sinceMs }: StaleCopy): StaleCopyMessage {
  return { path, currentPath, sandboxId, volumeId, generation, since: timestamp(sinceMs) };
}
