import { waitFor } from '../base/deadline.ts';
import { invalidArgument } from '../base/errors.ts';
import type { Permit } from '../callers/gate.ts';
import type { KeyReference } from '../keys/reference.ts';
import type { ImageOf, SandboxManager } from '../sandbox/manager.ts';
import type { KeySlotChange, KeySlots } from '../volume/operations/key-slots.ts';
import { keyReferenceFrom } from './convert-encryption.ts';
import type { KeyReference__Output } from '../grpc/generated/qshim/v1/KeyReference.ts';
import type { KeySlots as KeySlotsMessage } from '../grpc/generated/qshim/v1/KeySlots.ts';
import type { KeySlotsTarget__Output } from '../grpc/generated/qshim/v1/KeySlotsTarget.ts';
import type { VolumesHandlers } from '../grpc/generated/qshim/v1/Volumes.ts';
import { unary, type CallContext, type Edge } from '../grpc/handlers.ts';

/** The calls of the Volumes service that are about key slots. */
export function keySlotsHandlers(
  manager: SandboxManager,
  edge: Edge,
): Pick<VolumesHandlers, 'ListKeySlots' | 'AddKey' | 'ChangeKey' | 'RemoveKey'> {
  const change = async (
    target: KeySlotsTarget__Output | null,
    wanted: KeySlotChange,
    { signal, permit }: CallContext,
  ): Promise<KeySlotsMessage> => {
    const work = manager.changeKeySlots(targetFrom(target, permit), wanted);
    work.catch(() => undefined); // The caller may go; what was begun is finished.
    return messageOf(await waitFor(work, { signal }));
  };
  return {
    ListKeySlots: unary(edge, 'Volumes.ListKeySlots', async ({ target }, { permit }) =>
      messageOf(await manager.keySlots(targetFrom(target, permit))),
    ),
    AddKey: unary(edge, 'Volumes.AddKey', async ({ target, key, newKey, iterationMs }, context) =>
      change(target, { kind: 'add', ...keys(key, newKey), iterationMs }, context),
    ),
    ChangeKey: unary(edge, 'Volumes.ChangeKey', async ({ target, key, newKey, iterationMs }, context) =>
      change(target, { kind: 'change', ...keys(key, newKey), iterationMs }, context),
    ),
    RemoveKey: unary(edge, 'Volumes.RemoveKey', async ({ target, key, slot, _slot }, context) => {
      const reference = keyFrom('key', key);
      const wanted: KeySlotChange =
        _slot === 'slot' && slot !== undefined
          ? { kind: 'remove-slot', key: reference, slot }
          : { kind: 'remove', key: reference };
      return await change(target, wanted, context);
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

function targetFrom(message: KeySlotsTarget__Output | null, { grant }: Permit): ImageOf {
  if (message?.attached) return message.attached;
  if (message?.image !== undefined) return { path: message.image, roots: grant.roots };
  throw invalidArgument('target', '', 'one of attached and image is needed');
}

function messageOf({ uuid, used }: KeySlots): KeySlotsMessage {
  return { uuid, used: [...used] };
}
