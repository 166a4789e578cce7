import { mappingName, type HostCipher, type HostHash, type HostLuksSpec } from './encryption.ts';
import { isDirect, type AioMode, type MountSpec, type VolumeSpec } from './spec.ts';
import type { Placement } from './placement.ts';
import { qemuAddress, type Slot } from './slots.ts';

/**
 * Attach and detach as data: what will be said to QEMU and the guest, in order. A plan is made purely and can be shown
 * without acting; `sandbox/` carries it out. Every step that adds something names what removes it.
 */

/** What one generation of a volume is called inside QEMU. */
export interface QemuNames {
  /** qdev id of the front end. Holds the volume id, so that a lost journal can be rebuilt from QEMU. */
  readonly device: string;
  /** The node that the front end uses. Node names have at most 31 characters. */
  readonly formatNode: string;
  readonly fileNode: string;
  /** For host_luks, while it is being opened only: the key, and what the key is encrypted with. */
  readonly keySecret: string;
  readonly masterSecret: string;
  /** The job that makes an encrypted image, or changes its key slots. */
  readonly job: string;
}

const DEVICE_PATTERN = /^vol-([0-9]+)-(.+)$/;

/** Names of generation `generation` of volume `volumeId`. */
export function namesFor(volumeId: string, generation: number): QemuNames {
  return {
    device: `vol-${generation}-${volumeId}`,
    formatNode: `vol-${generation}-fmt`,
    fileNode: `vol-${generation}-file`,
    keySecret: `vol-${generation}-key`,
    masterSecret: `vol-${generation}-master`,
    job: `vol-${generation}-job`,
  };
}

/** The inverse of namesFor on the device id; undefined for devices that are not volumes. */
export function parseDeviceId(
  deviceId: string,
): { readonly volumeId: string; readonly generation: number } | undefined {
  const match = DEVICE_PATTERN.exec(deviceId);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { volumeId: match[2], generation: Number(match[1]) };
}

/**
 * A protocol node, where the bytes are. Here and below, a plan names every member; those with a question mark are left out of the
 * command where QEMU does as much by itself (defaults.ts).
 */
export interface FileNodeArguments {
  readonly driver: 'file' | 'host_device';
  readonly 'node-name': string;
  readonly filename: string;
  readonly aio: AioMode;
  readonly 'read-only'?: boolean;
  readonly 'auto-read-only'?: false;
  readonly discard?: 'ignore' | 'unmap';
  readonly cache?: { readonly direct: boolean; readonly 'no-flush': boolean };
  readonly locking: 'on';
}

/** A luks node over a protocol node that is there already, since an image may have to be made in it first. */
export interface LuksNodeArguments {
  readonly driver: 'luks';
  readonly 'node-name': string;
  readonly 'read-only'?: boolean;
  readonly 'auto-read-only'?: false;
  readonly discard?: 'ignore' | 'unmap';
  readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap';
  readonly cache?: { readonly direct: boolean; readonly 'no-flush': boolean };
  readonly file: string;
  readonly 'key-secret': string;
}

/** Arguments of `blockdev-create` (QAPI BlockdevCreateOptionsLUKS). */
export interface CreateLuksArguments {
  readonly 'job-id': string;
  readonly options: {
    readonly driver: 'luks';
    readonly file: string;
    /** Bytes that the guest is to see. */
    readonly size: number;
    readonly 'key-secret': string;
    readonly 'cipher-alg': HostCipher;
    readonly 'cipher-mode': 'xts';
    readonly 'ivgen-alg': 'plain64';
    readonly 'hash-alg': HostHash;
    /** Milliseconds. */
    readonly 'iter-time': number;
  };
}

/** Arguments of `blockdev-add` (QAPI BlockdevOptions): a format node over a protocol node, made and removed as one. */
export interface BlockNodeArguments {
  readonly driver: 'raw' | 'qcow2';
  readonly 'node-name': string;
  readonly 'read-only'?: boolean;
  readonly 'auto-read-only'?: false;
  readonly discard?: 'ignore' | 'unmap';
  readonly 'detect-zeroes'?: 'off' | 'on' | 'unmap';
  readonly cache?: { readonly direct: boolean; readonly 'no-flush': boolean };
  readonly file: FileNodeArguments;
  /** qcow2 only: `null` forbids a backing file, so that an image cannot name another file of the host. */
  readonly backing?: null;
}

/** Arguments of `device_add` for virtio-blk-pci; device_add converts wrong types in silence, so these are exact. */
export interface DeviceArguments {
  readonly driver: 'virtio-blk-pci';
  readonly id: string;
  readonly bus: string;
  readonly addr: string;
  readonly drive: string;
  readonly serial: string;
  readonly 'num-queues': number;
  readonly vectors: number;
  readonly iothread?: string;
  readonly 'iothread-vq-mapping'?: readonly { readonly iothread: string }[];
  readonly logical_block_size?: number;
  readonly physical_block_size?: number;
  readonly 'write-cache'?: 'on' | 'off';
  readonly discard?: boolean;
  readonly 'share-rw'?: boolean;
  readonly werror?: 'report' | 'ignore' | 'stop' | 'enospc';
  readonly rerror?: 'report' | 'ignore' | 'stop' | 'auto';
}

export type AttachStep =
  | {
      readonly kind: 'add-block-node';
      readonly command: 'blockdev-add';
      readonly arguments: BlockNodeArguments;
      readonly undo: RemovalStep;
    }
  | {
      readonly kind: 'add-device';
      readonly command: 'device_add';
      readonly arguments: DeviceArguments;
      readonly undo: RemovalStep;
    }
  | {
      readonly kind: 'add-file-node';
      readonly command: 'blockdev-add';
      readonly arguments: FileNodeArguments;
      readonly undo: RemovalStep;
    }
  /** Two secret objects: a random master key, which comes in a file, and the key, encrypted with it. */
  | {
      readonly kind: 'add-secret';
      readonly command: 'object-add';
      readonly arguments: { readonly 'qom-type': 'secret'; readonly id: string; readonly keyid?: string };
      readonly undo: RemovalStep;
    }
  | {
      readonly kind: 'create-image';
      readonly command: 'blockdev-create';
      readonly arguments: CreateLuksArguments;
      readonly undo: RemovalStep;
    }
  | {
      readonly kind: 'add-luks-node';
      readonly command: 'blockdev-add';
      readonly arguments: LuksNodeArguments;
      readonly undo: RemovalStep;
    }
  /** Once the image is open nothing needs the key any more. */
  | { readonly kind: 'remove-secrets' }
  /** The key is asked for before anything is changed. */
  | { readonly kind: 'fetch-key' }
  | { readonly kind: 'await-driver' }
  | { readonly kind: 'find-in-guest' }
  /** Opens LUKS2 in the guest, as /dev/mapper/NAME. */
  | { readonly kind: 'open-in-guest'; readonly name: string }
  | { readonly kind: 'mount'; readonly mount: MountSpec };

export type RemovalStep =
  | { readonly kind: 'remove-device'; readonly command: 'device_del'; readonly arguments: { readonly id: string } }
  | {
      readonly kind: 'remove-block-node';
      readonly command: 'blockdev-del';
      readonly arguments: { readonly 'node-name': string };
    }
  | { readonly kind: 'remove-secret'; readonly command: 'object-del'; readonly arguments: { readonly id: string } }
  | { readonly kind: 'dismiss-job'; readonly command: 'job-dismiss'; readonly arguments: { readonly id: string } };

export type DetachStep = { readonly kind: 'ask-guest' } | RemovalStep | { readonly kind: 'prove-gone' };

/** Where a volume goes in its VM. */
export interface Seat {
  readonly slot: Slot;
  readonly placement: Placement;
}

/** What must happen to attach a volume, in order. */
export function attachPlan(spec: VolumeSpec, names: QemuNames, seat: Seat, aio: AioMode): readonly AttachStep[] {
  const [removeDevice, removeNode] = removalSteps(names);
  const { encryption } = spec;
  const steps: AttachStep[] = [
    ...(needsKey(spec) ? [{ kind: 'fetch-key' } as const] : []),
    ...(encryption?.kind === 'host-luks'
      ? luksSteps(spec, encryption, names, aio)
      : [
          {
            kind: 'add-block-node',
            command: 'blockdev-add',
            arguments: blockNode(spec, names, aio),
            undo: removeNode,
          } as const,
        ]),
    { kind: 'add-device', command: 'device_add', arguments: frontEnd(spec, names, seat), undo: removeDevice },
    { kind: 'await-driver' },
    { kind: 'find-in-guest' },
  ];
  if (encryption?.kind === 'guest-luks2') {
    steps.push({ kind: 'open-in-guest', name: mappingName(parseDeviceId(names.device)?.volumeId ?? '') });
  }
  if (spec.mount !== undefined) steps.push({ kind: 'mount', mount: spec.mount });
  return steps;
}

/** `create-image` is carried out only when the source was seen to be empty, and the spec allows it. */
function luksSteps(spec: VolumeSpec, encryption: HostLuksSpec, names: QemuNames, aio: AioMode): readonly AttachStep[] {
  const { fileNode, formatNode, keySecret, masterSecret } = names;
  const removeNode = (node: string): RemovalStep => ({
    kind: 'remove-block-node',
    command: 'blockdev-del',
    arguments: { 'node-name': node },
  });
  const secret = (id: string, keyid?: string): AttachStep => ({
    kind: 'add-secret',
    command: 'object-add',
    arguments: { 'qom-type': 'secret', id, ...(keyid === undefined ? {} : { keyid }) },
    undo: { kind: 'remove-secret', command: 'object-del', arguments: { id } },
  });
  const { file, ...common } = blockNode(spec, names, aio);
  const create: AttachStep = {
    kind: 'create-image',
    command: 'blockdev-create',
    arguments: { 'job-id': names.job, options: createOptions(encryption, names) },
    undo: { kind: 'dismiss-job', command: 'job-dismiss', arguments: { id: names.job } },
  };
  return [
    { kind: 'add-file-node', command: 'blockdev-add', arguments: file, undo: removeNode(fileNode) },
    secret(masterSecret),
    secret(keySecret, masterSecret),
    ...(encryption.format === 'if_empty' ? [create] : []),
    {
      kind: 'add-luks-node',
      command: 'blockdev-add',
      arguments: { ...common, driver: 'luks', file: fileNode, 'key-secret': keySecret },
      undo: removeNode(formatNode),
    },
    { kind: 'remove-secrets' },
  ];
}

function createOptions(encryption: HostLuksSpec, names: QemuNames): CreateLuksArguments['options'] {
  const { sizeBytes, cipher, hash, iterationMs } = encryption;
  return {
    driver: 'luks',
    file: names.fileNode,
    size: sizeBytes,
    'key-secret': names.keySecret,
    'cipher-alg': cipher,
    'cipher-mode': 'xts',
    'ivgen-alg': 'plain64',
    'hash-alg': hash,
    'iter-time': iterationMs,
  };
}

/**
 * What takes away the rest of a host_luks volume, once its front end and its format node are gone: the protocol node, which
 * is a node of its own here, a job that an interrupted attach left, and the secrets.
 */
export function luksRemovalSteps(names: QemuNames): readonly RemovalStep[] {
  return [
    { kind: 'dismiss-job', command: 'job-dismiss', arguments: { id: names.job } },
    { kind: 'remove-block-node', command: 'blockdev-del', arguments: { 'node-name': names.fileNode } },
    { kind: 'remove-secret', command: 'object-del', arguments: { id: names.keySecret } },
    { kind: 'remove-secret', command: 'object-del', arguments: { id: names.masterSecret } },
  ];
}

function needsKey({ encryption }: VolumeSpec): boolean {
  return encryption !== undefined && (encryption.kind === 'host-luks' || encryption.key.kind === 'provided');
}

/** What must happen to detach a volume, in order; the tail after `ask-guest` also undoes a failed attach. */
export function detachPlan(names: QemuNames): readonly DetachStep[] {
  return [{ kind: 'ask-guest' }, ...removalSteps(names), { kind: 'prove-gone' }];
}

/** The commands that take a volume out of QEMU: the front end first, for a node in use cannot be removed. */
export function removalSteps(
  names: QemuNames,
): readonly [Extract<RemovalStep, { kind: 'remove-device' }>, Extract<RemovalStep, { kind: 'remove-block-node' }>] {
  return [
    { kind: 'remove-device', command: 'device_del', arguments: { id: names.device } },
    { kind: 'remove-block-node', command: 'blockdev-del', arguments: { 'node-name': names.formatNode } },
  ];
}

/** The aio modes to try, best first. `auto` falls back; a mode that the caller chose does not. */
export function aioCandidates(spec: VolumeSpec): readonly AioMode[] {
  if (spec.aio !== 'auto') return [spec.aio];
  return isDirect(spec.cache) ? ['io_uring', 'native', 'threads'] : ['io_uring', 'threads'];
}

function blockNode(spec: VolumeSpec, names: QemuNames, aio: AioMode): BlockNodeArguments {
  const cache = { direct: isDirect(spec.cache), 'no-flush': spec.cache === 'unsafe' };
  const common = {
    'read-only': spec.readOnly,
    // Never let QEMU weaken a writable volume to read-only behind the caller's back.
    'auto-read-only': false,
    discard: spec.discard,
    cache,
  } as const;
  return {
    ...common,
    driver: spec.source.kind === 'qcow2-file' ? 'qcow2' : 'raw',
    'node-name': names.formatNode,
    'detect-zeroes': spec.detectZeroes,
    file: {
      ...common,
      driver: spec.source.kind === 'block-device' ? 'host_device' : 'file',
      'node-name': names.fileNode,
      filename: spec.source.path,
      aio,
      locking: 'on',
    },
    ...(spec.source.kind === 'qcow2-file' ? { backing: null } : {}),
  };
}

function frontEnd(spec: VolumeSpec, names: QemuNames, { slot, placement }: Seat): DeviceArguments {
  const writeThrough = spec.cache === 'writethrough' || spec.cache === 'directsync';
  return {
    driver: 'virtio-blk-pci',
    id: names.device,
    bus: slot.bridge.id,
    addr: qemuAddress(slot.device),
    drive: names.formatNode,
    serial: spec.serial,
    'num-queues': spec.queues,
    vectors: placement.vectors,
    ...iothreadProperties(placement),
    logical_block_size: spec.logicalBlockSize,
    physical_block_size: spec.physicalBlockSize,
    'write-cache': writeThrough ? 'off' : 'on',
    discard: spec.discard === 'unmap',
    // One writer only: a second front end on the node is refused by QEMU.
    'share-rw': false,
    werror: spec.writeErrors,
    // A spec never has `enospc` here (completeSpec); QEMU would refuse it.
    rerror: spec.readErrors === 'enospc' ? 'auto' : spec.readErrors,
  };
}

/** One iothread serves the whole disk; several share its virtqueues, taking turns (QEMU 9.0: iothread-vq-mapping). */
function iothreadProperties({ iothreads }: Placement): Pick<DeviceArguments, 'iothread' | 'iothread-vq-mapping'> {
  const [first, ...more] = iothreads;
  if (first === undefined) return {};
  return more.length === 0
    ? { iothread: first }
    : { 'iothread-vq-mapping': iothreads.map((iothread) => ({ iothread })) };
}
