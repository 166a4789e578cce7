import type { ArgumentsOf } from '../qmp/protocol.ts';
import { frontEndOf } from './front-end/registry.ts';
import type { Seat } from './front-end/module.ts';
import { hostLuksObjects } from './host-luks.ts';
import { withoutDefaults } from './model/defaults.ts';
import type { AioMode, MountSpec } from './model/disk.ts';
import { throttleOf } from './model/limits.ts';
import { mappingName, type EncryptionSpec } from './model/encryption.ts';
import type { QemuNames } from './model/names.ts';
import { commonNode } from './model/nodes.ts';
import { fdsetObject, nodeObject, type QemuObject } from './model/objects.ts';
import { moduleOf, type SourceSpec } from './source/registry.ts';
import type { VolumeSpec } from './spec.ts';

/**
 * What a volume is in QEMU, and what is done in the guest afterwards, as data: made purely, shown by Plan, carried out
 * by add.ts and attach.ts, undone by removal.ts.
 */

/** All that the list depends on. */
export interface Planned {
  readonly spec: VolumeSpec;
  /** The source as QEMU is to open it. */
  readonly resolved: SourceSpec;
  readonly names: QemuNames;
  readonly seat: Seat;
  /** The socket by which QEMU reaches the source's server; undefined: by itself, or there is none. */
  readonly relay?: string | undefined;
}

/** The aio modes in which the source may be opened, best first. @param endsInSector as the inspection saw it */
export function aioModes(spec: VolumeSpec, endsInSector: boolean): readonly (AioMode | undefined)[] {
  return moduleOf(spec.source).aioModes(spec, endsInSector);
}

/**
 * The objects, each with everything that QEMU is told of it.
 * @param creates an encrypted image is to be made if there is none; the list without it is that of one that exists
 */
export function spelledOut(
  { spec, resolved, names, seat, relay }: Planned,
  aio: AioMode | undefined,
  creates: boolean,
): readonly QemuObject[] {
  const source = moduleOf(resolved);
  const protocol = source.protocol(resolved, names, spec, aio, relay);
  const { encryption } = spec;
  const nodes =
    encryption?.kind === 'host-luks'
      ? hostLuksObjects(spec, encryption, names, protocol, creates)
      : [
          nodeObject(
            'add-block-node',
            {
              ...commonNode(spec),
              ...source.format,
              'node-name': names.root,
              'detect-zeroes': spec.detectZeroes,
              file: protocol,
            },
            { parts: [names.protocol] },
          ),
        ];
  const files = source.byDescriptor ? [fdsetObject(names.fdset, source.describe(resolved))] : [];
  return [...files, ...source.helpers(resolved, names, relay), ...nodes, frontEndOf().device(spec, names, seat)];
}

/** The objects as they are sent: without what QEMU does by itself. */
export function objectsOf(planned: Planned, aio: AioMode | undefined, creates: boolean): readonly QemuObject[] {
  const { hostBlockSizes } = moduleOf(planned.resolved);
  return spelledOut(planned, aio, creates).map((object) => withoutDefaults(object, hostBlockSizes));
}

/** What is done once QEMU has it, in order. */
export type GuestStep =
  | { readonly kind: 'await-driver' }
  | { readonly kind: 'find-in-guest' }
  /** Opens LUKS2 in the guest, as /dev/mapper/NAME, and mounts what is asked for. */
  | { readonly kind: 'open-in-guest'; readonly name: string; readonly mount: MountSpec | undefined }
  | { readonly kind: 'mount'; readonly mount: MountSpec };

export function guestSteps({ mount, encryption }: VolumeSpec, volumeId: string): readonly GuestStep[] {
  const found: readonly GuestStep[] = [{ kind: 'await-driver' }, { kind: 'find-in-guest' }];
  if (encryption?.kind === 'guest-luks2') {
    return [...found, { kind: 'open-in-guest', name: mappingName(volumeId), mount }];
  }
  return mount === undefined ? found : [...found, { kind: 'mount', mount }];
}

/** All that an attach does, in order. */
export type PlanStep =
  /** Right after the device. */
  | { readonly kind: 'limit'; readonly arguments: ArgumentsOf<'block_set_io_throttle'> }
  /** The key is asked for before anything is changed. */
  | { readonly kind: 'fetch-key' }
  | { readonly kind: 'add'; readonly object: QemuObject }
  /** Those that nothing needs any more. */
  | { readonly kind: 'release'; readonly objects: readonly QemuObject[] }
  | GuestStep;

export function attachSteps(spec: VolumeSpec, volumeId: string, objects: readonly QemuObject[]): readonly PlanStep[] {
  const added = objects.flatMap((object): PlanStep[] => {
    const over = objects.filter(({ until }) => until === object.id);
    return [{ kind: 'add', object }, ...(over.length === 0 ? [] : [{ kind: 'release', objects: over } as const])];
  });
  const key: readonly PlanStep[] = needsKey(spec.encryption) ? [{ kind: 'fetch-key' }] : [];
  return [...key, ...added, ...limitSteps(spec, objects), ...guestSteps(spec, volumeId)];
}

function limitSteps({ limits }: VolumeSpec, objects: readonly QemuObject[]): readonly PlanStep[] {
  const device = objects.find(({ type }) => type === 'device')?.id;
  if (limits === undefined || device === undefined) return [];
  return [{ kind: 'limit', arguments: { id: frontEndOf().backendPath(device), ...throttleOf(limits, device) } }];
}

function needsKey(encryption: EncryptionSpec | undefined): boolean {
  return encryption !== undefined && (encryption.kind === 'host-luks' || encryption.key.kind === 'provided');
}
