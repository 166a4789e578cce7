import type { SandboxFiles } from './files.ts';

/** The command line of a sandbox's QEMU, as a pure function: same input, same arguments. */

export type RunningAccelerator = 'kvm' | 'tcg';

export interface Launch {
  readonly sandboxId: string;
  /** RFC 4122 text form. */
  readonly uuid: string;
  readonly accelerator: RunningAccelerator;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly kernel: string;
  readonly initrd: string;
  readonly kernelParameters: string;
  /** For the reference guest's start-up script, which reads `qshim.hostname=` from its kernel parameters. */
  readonly hostname?: string;
  /** Conventional PCI bridges on pcie.0 for hot-plugged devices. */
  readonly bridges: readonly { readonly id: string; readonly address: number }[];
  /** Ids of iothreads, for volumes. */
  readonly iothreads: readonly string[];
  /** Ports of the virtio-serial controller, the agent's among them: 31 to 511. Each costs the guest about 16 KiB. */
  readonly portsMax: number;
  readonly files: SandboxFiles;
  /** Where the guest's memory lies; anonymous when left out. */
  readonly memory?: GuestMemory;
}

/**
 * `anonymous`: QEMU's own. `template`: the open file that QEMU inherits as MEMORY_DESCRIPTOR, shared, so that what the
 * guest writes is in the file. `clone`: the same file, privately: the guest sees a template's memory and what it writes
 * is its own; QEMU waits for `migrate-incoming`. Both have one more port, through which a clone is given an identity of
 * its own.
 */
export type GuestMemory =
  | { readonly kind: 'anonymous' }
  | {
      readonly kind: 'template' | 'clone';
      /** The socket of the port named IDENTITY_PORT_NAME. */
      readonly identitySocket: string;
    };

/** Name of the virtio-serial port that qemu-guest-agent looks for. */
export const AGENT_PORT_NAME = 'org.qemu.guest_agent.0';

/** What a sandbox's own host name follows on its kernel command line. */
export const HOSTNAME_PARAMETER = 'qshim.hostname=';

/** The bus and the numbers of the ports that are always there; others are hot-plugged (sandbox/ports.ts). */
export const SERIAL_BUS = 'serial0.0';
export const AGENT_PORT_NR = 1;
/** Its qdev id. */
export const AGENT_PORT_ID = 'agent';
export const IDENTITY_PORT_NR = 2;
export const UEVENT_PORT_NR = 3;

/** The descriptor with which QEMU of a template or a clone is started: the memory of its guest. */
export const MEMORY_DESCRIPTOR = 3;
/** QEMU opens memory by a path only, and for writing, also what it maps privately (hostmem-file.c, physmem.c). */
const MEMORY_PATH = `/proc/self/fd/${MEMORY_DESCRIPTOR}`;

/** The id is part of the migration stream: a template and its clones must agree on it. */
const MEMORY_ID = 'memory0';

/** Name of the virtio-serial port on which a template's guest waits for its identity (guest/identity.ts). */
export const IDENTITY_PORT_NAME = 'org.qshim.identity.0';

/** Name of the virtio-serial port on which the guest passes on its kernel's announcements (guest/uevents.ts). */
export const UEVENT_PORT_NAME = 'org.qshim.uevents.0';

/**
 * Options of `-sandbox`: no obsolete calls, no privilege changes, no fork or exec, no affinity or scheduling changes.
 */
const SECCOMP = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';

/** Arguments for qemu-system-x86_64. Values are escaped, so ids and paths may hold commas. */
export function qemuArguments(launch: Launch): readonly string[] {
  const { files, hostname, memory = { kind: 'anonymous' } } = launch;
  // First, so that a parameter of the same name that a caller gave comes later and wins.
  const parameters = `${hostname === undefined ? '' : `${HOSTNAME_PARAMETER}${hostname} `}${launch.kernelParameters}`;
  return [
    ...['-name', `guest=${escape(`qshim-${launch.sandboxId}`)},debug-threads=on`],
    ...['-uuid', launch.uuid],
    '-nodefaults',
    '-no-user-config',
    ...['-display', 'none'],
    ...['-sandbox', SECCOMP],
    ...['-machine', machine(launch.accelerator, memory)],
    ...['-cpu', launch.accelerator === 'kvm' ? 'host' : 'max'],
    ...['-smp', `cpus=${launch.vcpus}`],
    ...['-m', `size=${launch.memoryMib}M`],
    ...memoryArguments(memory, launch.memoryMib),
    ...['-kernel', launch.kernel, '-initrd', launch.initrd, '-append', parameters],
    // Asserted here and read back over QMP: with native PCIe hotplug every detach would take 6 s.
    ...['-global', 'ICH9-LPC.acpi-pci-hotplug-with-bridge-support=on'],
    ...['-object', 'rng-random,id=rng0,filename=/dev/urandom'],
    ...launch.iothreads.flatMap((id) => ['-object', `iothread,id=${id}`]),
    ...['-device', 'virtio-rng-pci,rng=rng0,bus=pcie.0,addr=0x2'],
    // A new one for every QEMU: by it a guest with a driver for it notices that it was cloned.
    ...['-device', 'vmgenid,guid=auto'],
    // Tells of a guest kernel's panic (GUEST_PANICKED); QEMU then ends, as it does by default.
    ...['-device', 'pvpanic'],
    ...['-chardev', `socket,id=qmp,path=${escape(files.qmpSocket)},server=on,wait=off`],
    // `-mon` is deprecated since 11.1, and `-object monitor-qmp` is not in versions before; this is in all of them.
    ...['-qmp', 'chardev:qmp'],
    ...['-chardev', `socket,id=spare,path=${escape(files.spareSocket)},server=on,wait=off`],
    ...['-qmp', 'chardev:spare'],
    ...['-chardev', `file,id=console,path=${escape(files.consoleLog)},append=on`, '-serial', 'chardev:console'],
    ...['-device', `virtio-serial-pci,id=serial0,bus=pcie.0,addr=0x3,vectors=2,max_ports=${launch.portsMax}`],
    ...['-chardev', `socket,id=agent,path=${escape(files.agentSocket)},server=on,wait=off`],
    ...[
      '-device',
      `virtserialport,id=${AGENT_PORT_ID},bus=${SERIAL_BUS},nr=${AGENT_PORT_NR},chardev=agent,name=${AGENT_PORT_NAME}`,
    ],
    ...['-chardev', `socket,id=uevents,path=${escape(files.ueventSocket)},server=on,wait=off`],
    ...[
      '-device',
      `virtserialport,id=uevents,bus=${SERIAL_BUS},nr=${UEVENT_PORT_NR},chardev=uevents,name=${UEVENT_PORT_NAME}`,
    ],
    ...identityPort(memory),
    ...launch.bridges.flatMap((bridge, index) => ['-device', bridgeDevice(bridge, index)]),
  ];
}

function machine(accelerator: RunningAccelerator, memory: GuestMemory): string {
  const base = `q35,accel=${accelerator},usb=off,vmport=off,graphics=off`;
  return memory.kind === 'anonymous' ? base : `${base},memory-backend=${MEMORY_ID}`;
}

function memoryArguments(memory: GuestMemory, memoryMib: number): readonly string[] {
  if (memory.kind === 'anonymous') return [];
  const share = memory.kind === 'template' ? 'on' : 'off';
  return [
    ...['-object', `memory-backend-file,id=${MEMORY_ID},size=${memoryMib}M,mem-path=${MEMORY_PATH},share=${share}`],
    ...(memory.kind === 'clone' ? ['-incoming', 'defer'] : []),
  ];
}

function identityPort(memory: GuestMemory): readonly string[] {
  if (memory.kind === 'anonymous') return [];
  return [
    ...['-chardev', `socket,id=identity,path=${escape(memory.identitySocket)},server=on,wait=off`],
    ...[
      '-device',
      `virtserialport,id=identity,bus=${SERIAL_BUS},nr=${IDENTITY_PORT_NR},chardev=identity,name=${IDENTITY_PORT_NAME}`,
    ],
  ];
}

/**
 * A bridge whose slots are hot-pluggable through ACPI. The reservations are needed: without them the firmware gives an
 * empty bridge no windows, and the guest never sees a disk that comes later.
 */
function bridgeDevice(bridge: { readonly id: string; readonly address: number }, index: number): string {
  return [
    `pci-bridge,id=${bridge.id}`,
    'bus=pcie.0',
    `addr=0x${bridge.address.toString(16)}`,
    `chassis_nr=${index + 1}`,
    'shpc=off',
    'io-reserve=4k',
    'mem-reserve=1m',
    'pref64-reserve=1m',
  ].join(',');
}

/** In QEMU's option syntax a comma in a value is written twice. */
function escape(value: string): string {
  return value.replaceAll(',', ',,');
}
