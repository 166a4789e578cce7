import { checkId } from '../base/ids.ts';
import { invalidArgument } from '../base/errors.ts';
import type { Operation } from '../grpc/generated/qshim/v1/Operation.ts';
import type { OperationsHandlers } from '../grpc/generated/qshim/v1/Operations.ts';
import { streaming, unary, type Edge } from '../grpc/handlers.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { operationNotFound } from '../volume/operations/slot.ts';
import type { VolumeSnapshot } from '../volume/volume.ts';
import { operationMessage } from './convert.ts';
import { Visibility } from './visibility.ts';

/** Which operations one watcher is told of. */
interface Wanted {
  /** Empty: of all sandboxes. */
  readonly sandboxId: string;
  /** Empty: all. */
  readonly operationId: string;
}

export function operationsHandlers(manager: SandboxManager, edge: Edge): OperationsHandlers {
  return {
    Get: unary(edge, 'Operations.Get', (request) => Promise.resolve(found(manager, request))),
    List: unary(edge, 'Operations.List', ({ sandboxId, volumeId, running }, { permit }) => {
      const visible = new Visibility(manager, permit);
      const volumes = manager
        .volumes(sandboxId)
        .filter((one) => (volumeId === '' || one.volumeId === volumeId) && visible.shows(one.sandboxId));
      const operations = volumes.flatMap(messages).filter(({ endedAt }) => !running || endedAt === null);
      return Promise.resolve({ operations });
    }),
    Watch: streaming(edge, 'Operations.Watch', async (wanted, send, { signal, permit }) => {
      if (wanted.operationId !== '' && wanted.sandboxId === '') {
        throw invalidArgument('sandbox_id', '', 'is needed with operation_id');
      }
      // Open before the look, and nothing is awaited in between: no change is missed.
      using watcher = manager.events.watch();
      const visible = new Visibility(manager, permit);
      const sent = new Sent();
      const first = wanted.operationId === '' ? undefined : found(manager, wanted);
      const now = first === undefined ? manager.volumes(wanted.sandboxId).flatMap(messages) : [first];
      for (const message of now) if (visible.shows(message.sandboxId ?? '')) await sent.pass(message, send);
      while (!sent.hasEnded(wanted.operationId)) {
        for (const event of await watcher.take(signal)) {
          if (!visible.admits(event) || (wanted.sandboxId !== '' && event.sandboxId !== wanted.sandboxId)) continue;
          if (event.volumeId === undefined) continue;
          // Events of a volume carry its snapshot (VolumeStore).
          for (const message of messages(event.subject as VolumeSnapshot)) {
            if (wanted.operationId === '' || message.operationId === wanted.operationId) await sent.pass(message, send);
          }
        }
      }
    }),
    Cancel: unary(edge, 'Operations.Cancel', async ({ sandboxId, operationId }) => {
      const volume = await manager.cancelOperation(sandboxId, operationId);
      return oneOf([volume], { sandboxId, operationId });
    }),
  };
}

/** What a watcher was told of, so that it hears of each change once. */
class Sent {
  readonly #last = new Map<string, string>();
  readonly #ended = new Set<string>();

  async pass(message: Operation, send: (message: Operation) => Promise<void>): Promise<void> {
    const { sandboxId = '', volumeId = '', generation = 0, operationId = '', endedAt } = message;
    const key = JSON.stringify([sandboxId, volumeId, String(generation), operationId]);
    const text = JSON.stringify(message);
    if (this.#last.get(key) === text || this.#ended.has(key)) return;
    this.#last.set(key, text);
    await send(message);
    if (endedAt) this.#ended.add(key);
  }

  hasEnded(operationId: string): boolean {
    return operationId !== '' && this.#ended.size > 0;
  }
}

/** Those of a volume, the newest last. */
function messages(volume: VolumeSnapshot): readonly Operation[] {
  return volume.operations.map((operation) => operationMessage(volume, operation));
}

/** @throws ShimError INVALID_ARGUMENT; NOT_FOUND / SANDBOX_NOT_FOUND, OPERATION_NOT_FOUND */
function found(manager: SandboxManager, wanted: Wanted): Operation {
  checkId('operation_id', wanted.operationId);
  return oneOf(manager.volumes(wanted.sandboxId), wanted);
}

function oneOf(volumes: readonly VolumeSnapshot[], { sandboxId, operationId }: Wanted): Operation {
  const message = volumes.flatMap(messages).find((one) => one.operationId === operationId);
  if (message === undefined) throw operationNotFound(sandboxId, operationId);
  return message;
}
