import type { ArgumentsOf } from '../../qmp/protocol.ts';
import type { QemuNames } from './names.ts';

/**
 * A volume in QEMU is a list of objects, in the order in which they are added; they go in the opposite order. The list
 * is data, made purely (volume/plan.ts): attach, Plan, rollback, removal, proof and recovery all run over it, and the
 * order stands nowhere else.
 *
 *     attach  ───────▶  (object) … (object)  node  device  ──▶ the guest
 *     removal ◀───────  device first; then the rest, last one first; gone when none of `gone` is listed
 */
export type QemuObject = FdsetObject | NodeObject | DeviceObject | HelperObject | JobObject | ChardevObject;

interface ObjectOf<Type extends string, Add extends AddCommand, Remove extends RemoveCommand> {
  readonly type: Type;
  /** QEMU's name of it. */
  readonly id: string;
  /** The name of this step in a plan (API: PlannedStep.kind). */
  readonly step: string;
  /** The phase that it ends, in a volume's timings. */
  readonly phase?: string;
  readonly add: { readonly command: Add; readonly arguments: ArgumentsOf<Add> };
  readonly remove: { readonly command: Remove; readonly arguments: ArgumentsOf<Remove> };
  /** It is gone when QEMU lists none of these: its own name, and those of the parts that QEMU makes with it. */
  readonly gone: readonly string[];
  /** Nothing needs it once the object of this id is there: it goes then, long before the volume does. */
  readonly until?: string;
  /** The directory of the host whose files QEMU is to find in the `dir` of its arguments, where it sees none. */
  readonly files?: string;
}

type AddCommand =
  'blockdev-add' | 'device_add' | 'object-add' | 'blockdev-create' | 'blockdev-mirror' | 'chardev-add' | 'add-fd';
type RemoveCommand = 'blockdev-del' | 'device_del' | 'object-del' | 'job-dismiss' | 'chardev-remove' | 'remove-fd';

/** An open file, which a node opens as /dev/fdset/N. What is open is added with it (add.ts). */
export type FdsetObject = ObjectOf<'fdset', 'add-fd', 'remove-fd'>;
/** A block node, with those that are made as part of it. */
export type NodeObject = ObjectOf<'node', 'blockdev-add', 'blockdev-del'>;
/** The front end. Its removal needs the guest. */
export type DeviceObject = ObjectOf<'device', 'device_add', 'device_del'>;
/** A helper without a device: a secret, credentials. What is secret about it is filled in when it is added. */
export type HelperObject = ObjectOf<'object', 'object-add', 'object-del'>;
/** Work that QEMU does on its own; it is waited for. */
export type CreateJob = ObjectOf<'job', 'blockdev-create', 'job-dismiss'>;
/** A copy that QEMU makes of a disk in use. It goes only once it is concluded (mirror/job.ts). */
export type MirrorJob = ObjectOf<'job', 'blockdev-mirror', 'job-dismiss'>;
export type JobObject = CreateJob | MirrorJob;
export type ChardevObject = ObjectOf<'chardev', 'chardev-add', 'chardev-remove'>;

/**
 * QEMU keeps the name with the descriptor, and the path for those who come later and have no record (recover.ts).
 * @param path what was opened
 */
export function fdsetObject({ number, name }: QemuNames['fdset'], path: string): FdsetObject {
  return {
    type: 'fdset',
    id: name,
    step: 'add-descriptor',
    add: { command: 'add-fd', arguments: { 'fdset-id': number, opaque: `${name} ${path}` } },
    remove: { command: 'remove-fd', arguments: { 'fdset-id': number } },
    gone: [name],
  };
}

export function nodeObject(
  step: string,
  args: ArgumentsOf<'blockdev-add'>,
  options: { readonly parts?: readonly string[]; readonly phase?: string } = {},
): NodeObject {
  const id = args['node-name'] ?? '';
  return {
    type: 'node',
    id,
    step,
    phase: options.phase ?? 'block-node',
    add: { command: 'blockdev-add', arguments: args },
    remove: { command: 'blockdev-del', arguments: { 'node-name': id } },
    gone: [id, ...(options.parts ?? [])],
  };
}

export function deviceObject(args: ArgumentsOf<'device_add'>): DeviceObject {
  const { id } = args;
  return {
    type: 'device',
    id,
    step: 'add-device',
    phase: 'device',
    add: { command: 'device_add', arguments: args },
    remove: { command: 'device_del', arguments: { id } },
    gone: [id],
  };
}

/** @param more without `until` it stays as long as the volume */
export function helperObject(
  step: string,
  args: ArgumentsOf<'object-add'>,
  more: Pick<HelperObject, 'until' | 'files'> = {},
): HelperObject {
  const { id } = args;
  return {
    type: 'object',
    id,
    step,
    add: { command: 'object-add', arguments: args },
    remove: { command: 'object-del', arguments: { id } },
    gone: [id],
    ...more,
  };
}

export function jobObject(step: string, phase: string, args: ArgumentsOf<'blockdev-create'>): CreateJob {
  const id = args['job-id'];
  return {
    type: 'job',
    id,
    step,
    phase,
    add: { command: 'blockdev-create', arguments: args },
    remove: { command: 'job-dismiss', arguments: { id } },
    gone: [id],
  };
}

/** With the node that it puts over the disk. */
export function mirrorObject(args: ArgumentsOf<'blockdev-mirror'>): MirrorJob {
  const id = args['job-id'];
  return {
    type: 'job',
    id,
    step: 'mirror',
    add: { command: 'blockdev-mirror', arguments: args },
    remove: { command: 'job-dismiss', arguments: { id } },
    gone: [id, args['filter-node-name']],
  };
}

export function isMirror(object: QemuObject): object is MirrorJob {
  return object.add.command === 'blockdev-mirror';
}

/** The front end of a list. @throws Error for a list without one, which no volume has */
export function deviceOf(objects: readonly QemuObject[]): DeviceObject {
  const device = objects.find((object) => object.type === 'device');
  if (device === undefined) throw new Error('a volume without a front end');
  return device;
}
