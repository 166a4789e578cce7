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
      const told = new Told(wanted.operationId);
      if (wanted.operationId !== '') found(manager, wanted);
      for (const volume of manager.volumes(wanted.sandboxId)) {
        if (visible.shows(volume.sandboxId)) await told.of(volume, send);
      }
      while (!told.hasEnded) {
        for (const event of await watcher.take(signal)) {
          if (!visible.admits(event) || (wanted.sandboxId !== '' && event.sandboxId !== wanted.sandboxId)) continue;
          // Events of a volume carry its snapshot (VolumeStore).
          if (event.volumeId !== undefined) await told.of(event.subject as VolumeSnapshot, send);
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
class Told {
  /** Empty: of all. */
  readonly #operationId: string;
  /** Of each volume that is there, what its operations were last. */
  readonly #last = new Map<string, ReadonlyMap<string, string>>();
  #ended = false;

  constructor(operationId: string) {
    this.#operationId = operationId;
  }

  /** Whether the one operation that it is about was told to have ended. */
  get hasEnded(): boolean {
    return this.#ended;
  }

  async of(volume: VolumeSnapshot, send: (message: Operation) => Promise<void>): Promise<void> {
    const { sandboxId, volumeId, generation, state } = volume;
    const key = JSON.stringify([sandboxId, volumeId, generation]);
    const before = this.#last.get(key);
    const now = new Map<string, string>();
    for (const message of messages(volume)) {
      const { operationId = '' } = message;
      if (this.#operationId !== '' && operationId !== this.#operationId) continue;
      const text = JSON.stringify(message);
      now.set(operationId, text);
      if (before?.get(operationId) === text) continue;
      await send(message);
      if (operationId === this.#operationId && message.endedAt) this.#ended = true;
    }
    // Nothing comes of one that is removed: its operations have ended with it.
    if (state.state === 'removed') this.#last.delete(key);
    else this.#last.set(key, now);
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
