import type { Target } from '../callers/gate.ts';
import type { Labels, Role } from '../callers/policy.ts';
import type { RpcAccess } from '../grpc/handlers.ts';
import type { AddKeyRequest__Output } from '../grpc/generated/qshim/v1/AddKeyRequest.ts';
import type { AttachManyRequest__Output } from '../grpc/generated/qshim/v1/AttachManyRequest.ts';
import type { AttachVolumeRequest__Output } from '../grpc/generated/qshim/v1/AttachVolumeRequest.ts';
import type { CreateSandboxRequest__Output } from '../grpc/generated/qshim/v1/CreateSandboxRequest.ts';
import type { DetachManyRequest__Output } from '../grpc/generated/qshim/v1/DetachManyRequest.ts';
import type { ExecStreamRequest__Output } from '../grpc/generated/qshim/v1/ExecStreamRequest.ts';
import type { KeyReference__Output } from '../grpc/generated/qshim/v1/KeyReference.ts';
import type { KeySlotsTarget__Output } from '../grpc/generated/qshim/v1/KeySlotsTarget.ts';
import type { ListKeySlotsRequest__Output } from '../grpc/generated/qshim/v1/ListKeySlotsRequest.ts';
import type { MigrateVolumeRequest__Output } from '../grpc/generated/qshim/v1/MigrateVolumeRequest.ts';
import type { PlanRequest__Output } from '../grpc/generated/qshim/v1/PlanRequest.ts';
import type { ReleaseStaleCopyRequest__Output } from '../grpc/generated/qshim/v1/ReleaseStaleCopyRequest.ts';
import type { RemoveKeyRequest__Output } from '../grpc/generated/qshim/v1/RemoveKeyRequest.ts';
import type { VolumeSpec__Output } from '../grpc/generated/qshim/v1/VolumeSpec.ts';
import { describeReference, type KeyReference } from '../keys/reference.ts';
import type { RequestedEncryption } from '../volume/model/encryption.ts';
import { moduleOf } from '../volume/source/registry.ts';
import { keyReferenceFrom } from './convert-encryption.ts';
import { targetFrom, volumeSpecFrom } from './convert.ts';

/**
 * What every RPC of the API needs, in one table: the role, whether it is taken down, and what a request of it is about.
 * A handler whose method is not in here serves nobody (grpc/handlers.ts); test/unit/callers.test.ts holds the table
 * against the protos.
 */

function row(role: Role, audited: boolean, target: (request: never) => Target): RpcAccess {
  // The handler of the same name gets the same request: its type is that of the method's message.
  return { role, audited, target: target as (request: unknown) => Target };
}

interface OfSandbox {
  readonly sandboxId: string;
}
interface OfVolume extends OfSandbox {
  readonly volumeId: string;
}

const sandbox = ({ sandboxId }: OfSandbox): Target => ({ sandboxId });
const volume = ({ sandboxId, volumeId }: OfVolume): Target => ({ sandboxId, volumeIds: [volumeId] });
/** Of a volume, or of all of a sandbox. */
const someVolume = (request: OfVolume): Target => (request.volumeId === '' ? sandbox(request) : volume(request));

export const ACCESS: Readonly<Record<string, RpcAccess>> = {
  'Sandboxes.Create': row('admin', true, ({ sandboxId, spec }: CreateSandboxRequest__Output) => ({
    sandboxId,
    labels: ownLabels(spec?.labels),
    sources: [spec?.kernel ?? '', spec?.initrd ?? ''].filter((path) => path !== ''),
  })),
  'Sandboxes.Get': row('read', false, sandbox),
  'Sandboxes.List': row('read', false, () => ({})),
  'Sandboxes.Stop': row('admin', true, sandbox),
  'Sandboxes.Start': row('admin', true, sandbox),
  'Sandboxes.Pause': row('admin', true, sandbox),
  'Sandboxes.Resume': row('admin', true, sandbox),
  'Sandboxes.Reboot': row('admin', true, sandbox),
  'Sandboxes.Delete': row('admin', true, sandbox),
  'Sandboxes.Exec': row('exec', true, sandbox),
  'Sandboxes.ExecStream': row('exec', true, ({ start }: ExecStreamRequest__Output) => ({
    sandboxId: start?.sandboxId ?? '',
  })),
  'Sandboxes.Console': row('read', false, sandbox),
  'Sandboxes.Watch': row('read', false, sandbox),
  'Volumes.Attach': row('volume', true, ({ sandboxId, volumeId, spec }: AttachVolumeRequest__Output) => ({
    ...{ sandboxId, volumeIds: [volumeId] },
    ...together([specTarget(spec)]),
  })),
  'Volumes.Detach': row('volume', true, volume),
  'Volumes.AttachMany': row('volume', true, ({ sandboxId, volumes }: AttachManyRequest__Output) => ({
    ...{ sandboxId, volumeIds: volumes.map(({ volumeId }) => volumeId) },
    ...together(volumes.map(({ spec }) => specTarget(spec))),
  })),
  'Volumes.DetachMany': row('volume', true, ({ sandboxId, volumeIds }: DetachManyRequest__Output) => ({
    ...{ sandboxId, volumeIds },
  })),
  'Volumes.Plan': row('volume', false, ({ sandboxId, volumes }: PlanRequest__Output) => ({
    ...{ sandboxId, volumeIds: volumes.map(({ volumeId }) => volumeId) },
    ...together(volumes.map(({ spec }) => specTarget(spec))),
  })),
  'Volumes.Resize': row('volume', true, volume),
  'Volumes.SetLimits': row('volume', true, volume),
  'Volumes.Migrate': row('volume', true, (request: MigrateVolumeRequest__Output) => {
    const target = targetFrom(request);
    return { ...volume(request), sources: target === undefined ? [] : [moduleOf(target).place(target)] };
  }),
  'Volumes.Pivot': row('volume', true, volume),
  'Volumes.RenewLease': row('volume', true, volume),
  'Volumes.ListKeySlots': row('volume', false, ({ target }: ListKeySlotsRequest__Output) => imageTarget(target)),
  'Volumes.AddKey': row('volume', true, ({ target, key, newKey }: AddKeyRequest__Output) => ({
    ...imageTarget(target),
    keys: [...keyText('key', key), ...keyText('new_key', newKey)],
  })),
  'Volumes.ChangeKey': row('volume', true, ({ target, key, newKey }: AddKeyRequest__Output) => ({
    ...imageTarget(target),
    keys: [...keyText('key', key), ...keyText('new_key', newKey)],
  })),
  'Volumes.RemoveKey': row('volume', true, ({ target, key }: RemoveKeyRequest__Output) => ({
    ...imageTarget(target),
    keys: keyText('key', key),
  })),
  // Of sandboxes that may be gone, with their labels: only who may do everything sees all of them.
  'Volumes.ListStaleCopies': row('admin', false, () => ({})),
  'Volumes.ReleaseStaleCopy': row('admin', true, ({ path }: ReleaseStaleCopyRequest__Output) => ({ sources: [path] })),
  'Volumes.Get': row('read', false, volume),
  'Volumes.List': row('read', false, sandbox),
  'Volumes.Watch': row('read', false, sandbox),
  'Budgets.Set': row('admin', true, () => ({})),
  'Budgets.Get': row('read', false, () => ({})),
  'Budgets.List': row('read', false, () => ({})),
  'Budgets.Delete': row('admin', true, () => ({})),
  'Operations.Get': row('read', false, sandbox),
  'Operations.List': row('read', false, sandbox),
  'Operations.Watch': row('read', false, sandbox),
  'Operations.Cancel': row('volume', true, sandbox),
  'Stats.Get': row('read', false, someVolume),
  'Stats.Watch': row('read', false, someVolume),
  'Events.Watch': row('read', false, sandbox),
};

/** A label may have any name: without what every object has. */
function ownLabels(labels: Readonly<Record<string, string>> | undefined): Labels {
  return { ...labels };
}

interface SpecTarget {
  readonly sources: readonly string[];
  readonly keys: readonly string[];
}

function specTarget(message: VolumeSpec__Output | null): SpecTarget {
  const { source, encryption } = volumeSpecFrom(message);
  const key = keyOf(encryption);
  return {
    sources: source === undefined ? [] : [moduleOf(source).place(source)],
    keys: key === undefined ? [] : [describeReference(key)],
  };
}

function keyOf(encryption: RequestedEncryption | undefined): KeyReference | undefined {
  if (encryption?.kind === 'host-luks') return encryption.key;
  return encryption?.key?.kind === 'provided' ? encryption.key.reference : undefined;
}

function together(targets: readonly SpecTarget[]): SpecTarget {
  return { sources: targets.flatMap(({ sources }) => sources), keys: targets.flatMap(({ keys }) => keys) };
}

function imageTarget(target: KeySlotsTarget__Output | null): Target {
  if (target?.attached) return volume(target.attached);
  return target?.image === undefined ? {} : { sources: [target.image] };
}

function keyText(field: string, message: KeyReference__Output | null): readonly string[] {
  return message === null ? [] : [describeReference(keyReferenceFrom(field, message))];
}
