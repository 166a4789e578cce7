import { ShimError } from '../../base/errors.ts';
import type { OciDevice, OciLinux, OciProcess, OciResources } from './oci.ts';
import { SHARED_MEMORY, isOfOneMount, isPropagation } from './plan.ts';
import type { ContainerPlan, PlannedMount } from './types.ts';

/**
 * crun 1.8.1 refuses every version but 1.0; what later ones have added is optional, and it passes over what it does not
 * know.
 */
const RUNTIME_SPEC_VERSION = '1.0.2';

/** What a config.json's host parts have become in the guest. */
export interface GuestParts {
  readonly containerId: string;
  readonly rootfs: string;
  readonly terminal: boolean;
  /** Mount destination to the path in the guest that is bound there: volumes and copied files alike. */
  readonly binds: ReadonlyMap<string, string>;
  /** Path in the container to the device's numbers in the guest. */
  readonly devices: ReadonlyMap<string, DeviceNumbers>;
  /** Runs before the container's process, for a terminal: holds it back until `start`. */
  readonly hook: readonly string[] | undefined;
}

export interface DeviceNumbers {
  readonly major: number;
  readonly minor: number;
}

/** The container's control group in the guest, below /sys/fs/cgroup. */
export function cgroupOf(containerId: string): string {
  return `/qshim/${containerId}`;
}

/** Sysctls that belong to a namespace which the container does not have for itself. */
const SYSCTLS_OF: Readonly<Record<string, RegExp>> = {
  network: /^net\./,
  ipc: /^(kernel\.(msg|shm|sem)|fs\.mqueue\.)/,
  uts: /^kernel\.(hostname|domainname)$/,
};

/**
 * The config.json for crun in the guest. What concerns the host is dropped: annotations, labels of security modules
 * that the guest does not have, CPU sets and I/O weights by the host's numbers. Namespaces:
 * - `network` is dropped: all containers of the sandbox share the guest's network.
 * - One with a path means "that of the pod", which in here is the guest's own: it is dropped, and with it what would
 *   change it.
 * - All others are made anew, as asked.
 * @throws ShimError INVALID_ARGUMENT / VOLUME_MISSING when a volume or device was not given
 */
export function translateConfig({ config, mounts }: ContainerPlan, parts: GuestParts): object {
  const namespaces = (config.linux?.namespaces ?? []).filter(
    ({ type, path }) => type !== 'network' && (path ?? '') === '',
  );
  const owned = new Set(namespaces.map(({ type }) => type));
  return {
    ociVersion: RUNTIME_SPEC_VERSION,
    process: translateInit(config.process, parts.terminal),
    root: { path: parts.rootfs, readonly: config.root.readonly ?? false },
    ...(owned.has('uts') && config.hostname !== undefined && { hostname: config.hostname }),
    ...(owned.has('uts') && config.domainname !== undefined && { domainname: config.domainname }),
    mounts: mounts.map((mount) => translateMount(mount, parts)),
    ...(parts.hook && { hooks: { prestart: [{ path: parts.hook[0], args: parts.hook }] } }),
    linux: translateLinux(config.linux ?? {}, owned, namespaces, parts),
  };
}

/** `process` of a config.json or of an exec: without labels of security modules that the guest does not have. */
export function translateProcess(process: OciProcess, terminal: boolean): object {
  const { apparmorProfile: _profile, selinuxLabel: _label, ...rest } = process;
  return { ...rest, terminal };
}

/** The agent is spared when memory runs out (lib/limits.sh); a container that says nothing must not inherit that. */
function translateInit(process: OciProcess, terminal: boolean): object {
  return { ...translateProcess(process, terminal), oomScoreAdj: process.oomScoreAdj ?? 0 };
}

function translateMount({ kind, mount }: PlannedMount, parts: GuestParts): object {
  const { destination, type } = mount;
  const options = mount.options ?? [];
  if (kind === 'guest') return { destination, type, source: mount.source || type, options };
  const source = kind === 'shared-memory' ? SHARED_MEMORY : parts.binds.get(destination);
  if (source === undefined) throw missing(`the mount at ${destination}`);
  // A volume is mounted with its own options already; what is left for the bind is what each mount has for itself.
  const isOfBind = (option: string): boolean => option === 'ro' || isPropagation(option) || isOfOneMount(option);
  const kept = options.filter((option) => kind !== 'volume' || isOfBind(option));
  const bind = kept.includes('bind') || kept.includes('rbind') ? [] : ['bind'];
  return { destination, type: 'bind', source, options: [...bind, ...kept] };
}

function translateLinux(
  linux: OciLinux,
  owned: ReadonlySet<string>,
  namespaces: readonly object[],
  parts: GuestParts,
): object {
  const { mountLabel: _label, intelRdt: _rdt, resources, devices, sysctl, ...rest } = linux;
  const dropped = Object.entries(SYSCTLS_OF).filter(([namespace]) => !owned.has(namespace));
  const kept = Object.entries(sysctl ?? {}).filter(([name]) => !dropped.some(([, pattern]) => pattern.test(name)));
  const numbers = new Map<string, DeviceNumbers>();
  return {
    ...rest,
    cgroupsPath: cgroupOf(parts.containerId),
    namespaces,
    sysctl: Object.fromEntries(kept),
    devices: (devices ?? []).map((device) => translateDevice(device, parts, numbers)),
    resources: translateResources(resources ?? {}, numbers),
  };
}

function translateDevice(device: OciDevice, parts: GuestParts, numbers: Map<string, DeviceNumbers>): object {
  if (device.type !== 'b') return device;
  const found = parts.devices.get(device.path);
  if (found === undefined) throw missing(`the device ${device.path}`);
  numbers.set(`${device.major}:${device.minor}`, found);
  return { ...device, ...found };
}

/** New limits for a container that runs. */
export function translateLimits(resources: OciResources): object {
  // Rules on devices are those of its beginning: here nothing says what the host's numbers are in the guest.
  return translateResources({ ...resources, devices: undefined }, new Map());
}

/** Rules on host block devices are given the guest's numbers; CPU sets and I/O settings name things of the host. */
function translateResources(resources: OciResources, numbers: ReadonlyMap<string, DeviceNumbers>): object {
  const { blockIO: _io, network: _network, rdma: _rdma, devices, cpu, ...rest } = resources;
  const { cpus: _cpus, mems: _mems, ...cpuRest } = cpu ?? {};
  return {
    ...rest,
    ...(cpu && { cpu: cpuRest }),
    ...(devices && {
      devices: devices.map((rule) => ({ ...rule, ...numbers.get(`${rule.major ?? ''}:${rule.minor ?? ''}`) })),
    }),
  };
}

function missing(what: string): ShimError {
  return new ShimError('INVALID_ARGUMENT', `${what} has no volume in the guest`, {
    reason: 'VOLUME_MISSING',
    metadata: { what },
  });
}
