import { waitFor } from '../base/deadline.ts';
import { invalidArgument } from '../base/errors.ts';
import type { KeyReference } from '../keys/reference.ts';
import type { ImageOf, SandboxManager } from '../sandbox/manager.ts';
import type { KeySlotChange, KeySlots } from '../volume/operations/key-slots.ts';
import { keyReferenceFrom } from './convert-encryption.ts';
import type { KeyReference__Output } from '../grpc/generated/qshim/v1/KeyReference.ts';
import type { KeySlots as KeySlotsMessage } from '../grpc/generated/qshim/v1/KeySlots.ts';
import type { KeySlotsTarget__Output } from '../grpc/generated/qshim/v1/KeySlotsTarget.ts';
import type { VolumesHandlers } from '../grpc/generated/qshim/v1/Volumes.ts';
import { unary, type Edge } from '../grpc/handlers.ts';

/** The calls of the Volumes service that are about key slots. */
export function keySlotsHandlers(
  manager: SandboxManager,
  edge: Edge,
): Pick<VolumesHandlers, 'ListKeySlots' | 'AddKey' | 'ChangeKey' | 'RemoveKey'> {
  const change = async (
    target: KeySlotsTarget__Output | null,
    wanted: KeySlotChange,
    signal: AbortSignal,
  ): Promise<KeySlotsMessage> => {
    const work = manager.changeKeySlots(targetFrom(target), wanted);
    work.catch(() => undefined); // The caller may go; what was begun is finished.
    return messageOf(await waitFor(work, { signal }));
  };
  return {
    ListKeySlots: unary(edge, 'Volumes.ListKeySlots', async ({ target }) =>
      messageOf(await manager.keySlots(targetFrom(target))),
    ),
    AddKey: unary(edge, 'Volumes.AddKey', async ({ target, key, newKey, iterationMs }, { signal }) =>
      change(target, { kind: 'add', ...keys(key, newKey), iterationMs }, signal),
    ),
    ChangeKey: unary(edge, 'Volumes.ChangeKey', async ({ target, key, newKey, iterationMs }, { signal }) =>
      change(target, { kind: 'change', ...keys(key, newKey), iterationMs }, signal),
    ),
    RemoveKey: unary(edge, 'Volumes.RemoveKey', async ({ target, key, slot, _slot }, { signal }) => {
      const reference = keyFrom('key', key);
      const wanted: KeySlotChange =
        _slot === 'slot' && slot !== undefined
          ? { kind: 'remove-slot', key: reference, slot }
          : { kind: 'remove', key: reference };
      return await change(target, wanted, signal);
    }),
  };
}

function keys(
  key: KeyReference__Output | null,
  newKey: KeyReference__Output | null,
): { readonly key: KeyReference; readonly newKey: KeyReference } {
  return { key: keyFrom('key', key), newKey: keyFrom('new_key', newKey) };
}

function keyFrom(field: string, message: KeyReference__Output | null): KeyReference {
  if (message === null) throw invalidArgument(field, '', 'is missing');
  return keyReferenceFrom(field, message);
}

function targetFrom(message: KeySlotsTarget__Output | null): ImageOf {
  if (message?.attached) return message.attached;
  if (message?.image !== undefined) return { path: message.image };
  throw invalidArgument('target', '', 'one of attached and image is needed');
}

function messageOf({ uuid, used }: KeySlots): KeySlotsMessage {
  return { uuid, used: [...used] };
}
