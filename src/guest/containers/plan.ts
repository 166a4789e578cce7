import { ShimError } from '../../base/errors.ts';
import type { ReasonWith } from '../../base/reasons.ts';
import type { OciConfig, OciDevice, OciDeviceRule, OciMount } from './oci.ts';
import type { ContainerPlan, PlannedDevice, PlannedMount, VolumeMount } from './types.ts';

/** Where volumes of containers are mounted in the guest. */
const VOLUMES_DIRECTORY = '/run/qshim/volumes';

/** The mount point to give a volume that containers use, for `MountSpec.mountPoint`. */
export function guestMountPoint(volumeId: string): string {
  return `${VOLUMES_DIRECTORY}/${volumeId}`;
}

/** File systems that the guest makes out of nothing. */
const GUEST_MADE: ReadonlySet<string> = new Set([
  'proc',
  'sysfs',
  'tmpfs',
  'devpts',
  'mqueue',
  'cgroup',
  'cgroup2',
  'ramfs',
]);

/** The pod's shared memory, which CRI binds from the host: all containers of a pod share the guest's. */
export const SHARED_MEMORY = '/dev/shm';

/**
 * Character devices that have the same numbers in every Linux: major 1 (null, zero, random ...) and 5 (tty, ptmx ...).
 */
const COMMON_MAJORS: ReadonlySet<number> = new Set([1, 5]);

/**
 * What a config.json needs from the host. Pure: no file is looked at; that a `files` source is a small regular file is
 * checked by `create`.
 * @throws ShimError INVALID_ARGUMENT / MOUNT_NOT_SUPPORTED, DEVICE_NOT_SUPPORTED, HOOKS_NOT_SUPPORTED
 */
export function planContainer(config: OciConfig): ContainerPlan {
  const { linux, hooks } = config;
  for (const [name, list] of Object.entries(hooks ?? {})) {
    if ((list ?? []).length === 0) continue;
    throw refused('HOOKS_NOT_SUPPORTED', `hooks.${name}`, 'hooks are programs of the host, which a guest cannot run');
  }
  const mounts = (config.mounts ?? []).map((mount) => ({ kind: kindOf(mount), mount }));
  const ofKind = (wanted: PlannedMount['kind']): readonly OciMount[] =>
    mounts.filter(({ kind }) => kind === wanted).map(({ mount }) => mount);
  return {
    config,
    mounts,
    volumes: ofKind('volume').map(volumeOf),
    files: ofKind('file').map(({ destination, source }) => ({ destination, source })),
    devices: (linux?.devices ?? []).flatMap((device) => hostDevice(device, linux?.resources?.devices ?? [])),
  };
}

/** @throws ShimError INVALID_ARGUMENT / MOUNT_NOT_SUPPORTED */
function kindOf(mount: OciMount): PlannedMount['kind'] {
  const { type, source, destination } = mount;
  if (type === 'ext4' || type === 'xfs') return 'volume';
  if (isBind(mount)) {
    if (destination === SHARED_MEMORY) return 'shared-memory';
    if (source.startsWith('/')) return 'file';
  } else if (GUEST_MADE.has(type)) return 'guest';
  const what = `${type === '' ? 'no type' : `type ${type}`}, source ${JSON.stringify(source)}`;
  throw refused('MOUNT_NOT_SUPPORTED', `the mount at ${destination} (${what})`, 'the guest cannot make such a mount');
}

function isBind({ type, options }: OciMount): boolean {
  return type === 'bind' || (options ?? []).some((option) => option === 'bind' || option === 'rbind');
}

/** Options of the mount itself: without what says how the file is made a device, and what belongs to a bind. */
function volumeOf({ destination, source, type, options }: OciMount): VolumeMount {
  const all = options ?? [];
  const ours = new Set(['loop', 'ro', 'rw', 'bind', 'rbind', 'defaults']);
  return {
    destination,
    source,
    fsType: type === 'xfs' ? 'xfs' : 'ext4',
    readOnly: all.includes('ro'),
    options: all.filter((option) => !ours.has(option) && !isPropagation(option) && !isOfOneMount(option)),
  };
}

/** Flags that each mount of a file system has for itself (mount(2)): the container's bind has them, not the volume. */
export function isOfOneMount(option: string): boolean {
  return /^(no)?(suid|dev|exec|atime|diratime|relatime)$|^strictatime$/.test(option);
}

/** rprivate, shared and the like concern the container's mount, not the volume's. */
export function isPropagation(option: string): boolean {
  return /^r?(private|shared|slave|unbindable)$/.test(option);
}

/** A block device of the host has to be attached; other devices are the guest's own, if every Linux has them. */
function hostDevice(device: OciDevice, rules: readonly OciDeviceRule[]): readonly PlannedDevice[] {
  const { type, path, major, minor } = device;
  if (type === 'b') return [{ path, readOnly: !mayWrite(device, rules), major, minor }];
  if (type === 'p' || ((type === 'c' || type === 'u') && COMMON_MAJORS.has(major))) return [];
  throw refused(
    'DEVICE_NOT_SUPPORTED',
    `the device ${path} (${type} ${major}:${minor})`,
    'the guest has no such device',
  );
}

/** As the kernel has it: of the rules that speak of writing to this device the last one counts. */
function mayWrite({ major, minor }: OciDevice, rules: readonly OciDeviceRule[]): boolean {
  const isAny = (number: number | null | undefined): boolean => number === undefined || number === null || number < 0;
  const speaking = rules.filter(
    (rule) =>
      (rule.type === undefined || rule.type === '' || rule.type === 'a' || rule.type === 'b') &&
      (isAny(rule.major) || rule.major === major) &&
      (isAny(rule.minor) || rule.minor === minor) &&
      (rule.access === undefined || rule.access === '' || rule.access.includes('w')),
  );
  return rules.length === 0 || speaking.at(-1)?.allow === true;
}

function refused(reason: ReasonWith<'INVALID_ARGUMENT'>, what: string, why: string): ShimError {
  return new ShimError('INVALID_ARGUMENT', `${what} is not supported: ${why}`, { reason, metadata: { what } });
}
