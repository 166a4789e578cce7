/**
 * QMP (the QEMU Machine Protocol) as qshim speaks it: the commands that it sends, with the arguments that it fills in
 * and the members of the answers that it reads, and the events that it listens to. `contract.ts` repeats this as data;
 * the contract test holds that data against the real binary. Names are QAPI's own.
 */
import type { BlockdevAmendLuks, BlockdevCreateOptions, BlockdevOptions } from './block-options.ts';

/** An object without members that qshim cares for. */
export type Empty = Readonly<Record<string, never>>;

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

/** What the server says first. */
export interface QmpGreeting {
  readonly version: QemuVersion;
  /** The distribution's name of the build, may be empty. */
  readonly package: string;
  readonly capabilities: readonly string[];
}

export type RunState =
  | 'debug'
  | 'inmigrate'
  | 'internal-error'
  | 'io-error'
  | 'paused'
  | 'postmigrate'
  | 'prelaunch'
  | 'finish-migrate'
  | 'restore-vm'
  | 'running'
  | 'save-vm'
  | 'shutdown'
  | 'suspended'
  | 'watchdog'
  | 'guest-panicked'
  | 'colo';

type OnOffAuto = 'on' | 'off' | 'auto';
type BlockdevOnError = 'report' | 'ignore' | 'enospc' | 'stop' | 'auto';

/**
 * device_add of a virtio disk. QEMU's schema describes only `driver`, `bus` and `id`; the rest are device properties,
 * which `device-list-properties` names and which QEMU ignores or converts in silence when their JSON type is wrong. So
 * these types are the only check there is before the call.
 */
export interface VirtioBlkPciArguments {
  readonly driver: 'virtio-blk-pci';
  readonly id: string;
  readonly bus: string;
  /** Slot and optional function in hexadecimal ("0x1f", "6.0"): QEMU reads "10" as 16. */
  readonly addr?: string;
  /** Node name of the top block node. */
  readonly drive: string;
  /** At most 20 bytes; virtio-blk cuts the rest in silence. */
  readonly serial?: string;
  readonly 'num-queues'?: number;
  readonly 'queue-size'?: number;
  readonly vectors?: number;
  /** Bytes, a power of two. */
  readonly logical_block_size?: number;
  /** Bytes, a power of two. */
  readonly physical_block_size?: number;
  readonly 'share-rw'?: boolean;
  readonly 'write-cache'?: OnOffAuto;
  readonly 'config-wce'?: boolean;
  readonly discard?: boolean;
  readonly 'write-zeroes'?: boolean;
  readonly werror?: BlockdevOnError;
  readonly rerror?: BlockdevOnError;
  readonly iothread?: string;
  readonly 'disable-legacy'?: OnOffAuto;
  readonly 'disable-modern'?: boolean;
  readonly bootindex?: number;
  /** QEMU 9.0; takes the place of `iothread`. */
  readonly 'iothread-vq-mapping'?: readonly { readonly iothread: string; readonly vqs?: readonly number[] }[];
}

/** device_add of a port of a virtio-serial controller; as above, only these types check it. */
export interface VirtSerialPortArguments {
  readonly driver: 'virtserialport';
  readonly id: string;
  readonly bus: string;
  /** The N of the guest's /dev/vportDpN, D being the same for all. */
  readonly nr: number;
  readonly chardev: string;
}

/** device_add of a device that no driver of a guest takes. */
export interface PciTestdevArguments {
  readonly driver: 'pci-testdev';
  readonly id: string;
  readonly bus: string;
  /** As for a virtio disk. */
  readonly addr: string;
}

/** chardev-add (QAPI ChardevBackend). */
export type ChardevBackend =
  /** `DEVICE.in` and `DEVICE.out`, or else `DEVICE` for both: FIFOs, which QEMU opens for reading and writing. */
  | { readonly type: 'pipe'; readonly data: { readonly device: string } }
  | { readonly type: 'file'; readonly data: { readonly in: string; readonly out: string } };

/** Limits of a throttle group (QAPI ThrottleLimits); 0 is no limit. */
export interface ThrottleLimits {
  readonly 'iops-total'?: number;
  readonly 'iops-read'?: number;
  readonly 'iops-write'?: number;
  /** Bytes a second, like the other two. */
  readonly 'bps-total'?: number;
  readonly 'bps-read'?: number;
  readonly 'bps-write'?: number;
}

export type ObjectOptions =
  | {
      readonly 'qom-type': 'secret';
      readonly id: string;
      /** The key itself: never logged. */
      readonly data?: string;
      readonly file?: string;
      readonly format?: 'raw' | 'base64';
      /** Id of the secret that `data` is encrypted with (AES-256-CBC). */
      readonly keyid?: string;
      /** Base64. */
      readonly iv?: string;
    }
  | {
      readonly 'qom-type': 'tls-creds-x509';
      readonly id: string;
      /** Directory with ca-cert.pem and, for a client that proves who it is, client-cert.pem and client-key.pem. */
      readonly dir: string;
      readonly endpoint: 'client';
      readonly 'verify-peer'?: boolean;
    }
  | { readonly 'qom-type': 'iothread'; readonly id: string; readonly 'poll-max-ns'?: number }
  | { readonly 'qom-type': 'throttle-group'; readonly id: string; readonly limits?: ThrottleLimits };

export interface BlockNodeInfo {
  readonly 'node-name'?: string;
  readonly drv: string;
  readonly file: string;
  readonly ro: boolean;
  readonly encrypted: boolean;
  readonly cache: { readonly writeback: boolean; readonly direct: boolean; readonly 'no-flush': boolean };
  readonly image: {
    readonly filename: string;
    readonly format: string;
    /** Bytes, as the guest sees them. */
    readonly 'virtual-size': number;
    /** Bytes on the host's disk. */
    readonly 'actual-size'?: number;
  };
}

export interface BlockStats {
  readonly 'node-name'?: string;
  /** QOM path of the front end's backend, e.g. /machine/peripheral/ID/virtio-backend. */
  readonly qdev?: string;
  readonly stats: BlockDeviceStats;
  /** What it stands on. */
  readonly parent?: { readonly stats: Pick<BlockDeviceStats, 'wr_highest_offset'> };
}

/** Counted since the front end is there. Bytes and nanoseconds. */
export interface BlockDeviceStats {
  readonly rd_bytes: number;
  readonly wr_bytes: number;
  readonly unmap_bytes: number;
  readonly rd_operations: number;
  readonly wr_operations: number;
  readonly flush_operations: number;
  readonly unmap_operations: number;
  readonly rd_total_time_ns: number;
  readonly wr_total_time_ns: number;
  readonly flush_total_time_ns: number;
  readonly unmap_total_time_ns: number;
  readonly rd_merged: number;
  readonly wr_merged: number;
  readonly unmap_merged: number;
  readonly failed_rd_operations: number;
  readonly failed_wr_operations: number;
  readonly failed_flush_operations: number;
  readonly failed_unmap_operations: number;
  readonly invalid_rd_operations: number;
  readonly invalid_wr_operations: number;
  readonly invalid_flush_operations: number;
  readonly invalid_unmap_operations: number;
  /** Where the farthest write to the node has ended. */
  readonly wr_highest_offset: number;
  /** Absent while there was no request yet. */
  readonly idle_time_ns?: number;
  readonly account_failed: boolean;
  readonly account_invalid: boolean;
  readonly rd_latency_histogram?: BlockLatencyHistogramInfo;
  readonly wr_latency_histogram?: BlockLatencyHistogramInfo;
  readonly flush_latency_histogram?: BlockLatencyHistogramInfo;
}

/** One bin more than boundaries: below the first, between each two, from the last on. */
export interface BlockLatencyHistogramInfo {
  readonly boundaries: readonly number[];
  readonly bins: readonly number[];
}

/** The limits of one disk, as block_set_io_throttle takes them and query-block shows them; 0 is no limit. */
export interface IoThrottle {
  readonly iops: number;
  readonly iops_rd: number;
  readonly iops_wr: number;
  /** Bytes a second, like the other two. */
  readonly bps: number;
  readonly bps_rd: number;
  readonly bps_wr: number;
  readonly iops_max?: number;
  readonly iops_rd_max?: number;
  readonly iops_wr_max?: number;
  readonly bps_max?: number;
  readonly bps_rd_max?: number;
  readonly bps_wr_max?: number;
  /** Seconds, like those below. */
  readonly iops_max_length?: number;
  readonly iops_rd_max_length?: number;
  readonly iops_wr_max_length?: number;
  readonly bps_max_length?: number;
  readonly bps_rd_max_length?: number;
  readonly bps_wr_max_length?: number;
  /** Bytes that count as one operation. */
  readonly iops_size?: number;
  /** Disks that name the same one share its limits. */
  readonly group?: string;
}

export interface BlockInfo {
  /** QOM path of the front end's backend, e.g. /machine/peripheral/ID/virtio-backend. */
  readonly qdev?: string;
  readonly 'io-status'?: 'ok' | 'failed' | 'nospace';
  readonly inserted?: IoThrottle & {
    readonly 'node-name'?: string;
    readonly 'dirty-bitmaps'?: readonly BlockDirtyInfo[];
  };
}

/** A bitmap of what was written since it is there. */
export interface BlockDirtyInfo {
  readonly name?: string;
  /** Bytes. */
  readonly count: number;
  /** Bytes. */
  readonly granularity: number;
  readonly recording: boolean;
  readonly busy: boolean;
  readonly persistent: boolean;
  readonly inconsistent?: boolean;
}

/**
 * x-query-virtio-status (QEMU 7.1), of the path ending in /virtio-backend. A status bit reads like
 * "VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready": compare the part before the colon.
 */
export interface VirtioStatus {
  readonly name: string;
  readonly 'num-vqs': number;
  readonly started: boolean;
  readonly broken: boolean;
  readonly status: {
    readonly statuses: readonly string[];
    /** Bits without a name, absent when there are none. */
    readonly 'unknown-statuses'?: number;
  };
  /**
   * What the driver acknowledged, written like the status bits. SeaBIOS drives disks too while it looks for something
   * to boot, and sets DRIVER_OK, which stays until the kernel's driver resets the device seconds later. It never takes
   * VIRTIO_RING_F_INDIRECT_DESC or VIRTIO_RING_F_EVENT_IDX (`transports`); Linux takes both when they are offered.
   */
  readonly 'guest-features': {
    readonly 'dev-features'?: readonly string[];
    readonly transports: readonly string[];
  };
}

export interface PciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  /** The id given to device_add, or "". */
  readonly qdev_id: string;
  readonly class_info: { readonly class: number };
  readonly pci_bridge?: {
    readonly bus: { readonly number: number; readonly secondary: number; readonly subordinate: number };
    /** Absent until the firmware has numbered the bridge. */
    readonly devices?: readonly PciDevice[];
  };
}

export interface JobInfo {
  readonly id: string;
  readonly type: string;
  readonly status: JobStatus;
  /** In a unit of the job's own. */
  readonly 'current-progress': number;
  readonly 'total-progress': number;
  /** Why it failed. Absent from a job that has concluded well. */
  readonly error?: string;
}

export type JobStatus =
  | 'undefined'
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';

export interface BlockdevMirror {
  readonly 'job-id': string;
  /** Node name of the root of a disk. */
  readonly device: string;
  /** Node name; it has the size of `device`, or the job fails. */
  readonly target: string;
  readonly sync: 'full';
  /** Every write of the guest's goes to both, so that once READY they are the same at any moment. */
  readonly 'copy-mode': 'write-blocking';
  /** The node that is over `device` while the job lasts. */
  readonly 'filter-node-name': string;
  /** Bytes a second; 0 is no limit. */
  readonly speed: number;
  readonly 'on-source-error': 'report' | 'stop';
  readonly 'on-target-error': 'report' | 'enospc';
  /** The job stays, concluded, for whoever comes to look. */
  readonly 'auto-dismiss': false;
}

/** `x-ignore-shared`: memory that is shared with a file stays out of the stream. `events`: MIGRATION is sent. */
export type MigrationCapability = 'events' | 'x-ignore-shared';

export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'cancelling'
  | 'cancelled'
  | 'active'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover'
  | 'completed'
  | 'failed'
  | 'colo'
  | 'pre-switchover'
  | 'device'
  | 'wait-unplug';

/** One entry of query-qmp-schema (QAPI SchemaInfo); which members are there depends on `meta-type`. */
export interface SchemaInfo {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string;
  readonly 'ret-type'?: string;
  readonly 'element-type'?: string;
  /** Named members of an object; unnamed ones of an alternate. */
  readonly members?: readonly { readonly name?: string; readonly type?: string }[];
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
  readonly values?: readonly string[];
}

interface Command<Arguments, Returns> {
  readonly arguments: Arguments;
  readonly returns: Returns;
}

type ById = { readonly id: string };

/** Every command that qshim may send. `arguments: undefined` is a command without arguments. */
export interface QmpCommands {
  readonly qmp_capabilities: Command<{ readonly enable?: readonly string[] } | undefined, Empty>;
  readonly 'query-version': Command<undefined, { readonly qemu: QemuVersion; readonly package: string }>;
  readonly 'query-status': Command<undefined, { readonly status: RunState; readonly running: boolean }>;
  readonly 'query-qmp-schema': Command<undefined, readonly SchemaInfo[]>;
  readonly 'query-kvm': Command<undefined, { readonly enabled: boolean; readonly present: boolean }>;
  readonly 'query-uuid': Command<undefined, { readonly UUID: string }>;
  readonly 'blockdev-add': Command<BlockdevOptions, Empty>;
  readonly 'blockdev-del': Command<{ readonly 'node-name': string }, Empty>;
  readonly 'blockdev-create': Command<{ readonly 'job-id': string; readonly options: BlockdevCreateOptions }, Empty>;
  readonly 'x-blockdev-amend': Command<
    { readonly 'job-id': string; readonly 'node-name': string; readonly options: BlockdevAmendLuks },
    Empty
  >;
  /** `size` is bytes. A node below a filter takes it and nothing changes: resize the top node. */
  readonly block_resize: Command<{ readonly 'node-name': string; readonly size: number }, Empty>;
  /** `id` is the QOM path of the front end's backend. What is not named is none; all of a group changes. */
  readonly block_set_io_throttle: Command<{ readonly id: string } & IoThrottle, Empty>;
  readonly device_add: Command<VirtioBlkPciArguments | VirtSerialPortArguments | PciTestdevArguments, Empty>;
  /** Its reply says only that QEMU has begun; DEVICE_DELETED is the end. */
  readonly device_del: Command<ById, Empty>;
  readonly 'device-list-properties': Command<
    { readonly typename: string },
    readonly { readonly name: string; readonly type: string }[]
  >;
  readonly 'object-add': Command<ObjectOptions, Empty>;
  readonly 'object-del': Command<ById, Empty>;
  readonly 'qom-list': Command<{ readonly path: string }, readonly { readonly name: string; readonly type: string }[]>;
  readonly 'qom-get': Command<{ readonly path: string; readonly property: string }, unknown>;
  readonly 'qom-set': Command<{ readonly path: string; readonly property: string; readonly value: unknown }, Empty>;
  readonly 'query-named-block-nodes': Command<{ readonly flat?: boolean } | undefined, readonly BlockNodeInfo[]>;
  /** QEMU asks the files for their sizes: it waits for storage that hangs, and with it all of the VM. */
  readonly 'query-block': Command<undefined, readonly BlockInfo[]>;
  /** From QEMU's memory alone. */
  readonly 'query-blockstats': Command<{ readonly 'query-nodes'?: boolean } | undefined, readonly BlockStats[]>;
  /**
   * `id` is the QOM path of the front end's backend, boundaries are nanoseconds. Where there is one already the counts
   * begin anew, and QEMU frees the old ones without a lock (block/accounting.c): never of a disk in an iothread.
   */
  readonly 'block-latency-histogram-set': Command<
    { readonly id: string; readonly boundaries: readonly number[] },
    Empty
  >;
  readonly 'x-query-virtio-status': Command<{ readonly path: string }, VirtioStatus>;
  readonly 'query-pci': Command<undefined, readonly { readonly bus: number; readonly devices: readonly PciDevice[] }[]>;
  readonly 'chardev-add': Command<{ readonly id: string; readonly backend: ChardevBackend }, Empty>;
  /** Refused while a device uses it. */
  readonly 'chardev-remove': Command<ById, Empty>;
  readonly 'query-chardev': Command<
    undefined,
    readonly { readonly label: string; readonly filename: string; readonly 'frontend-open': boolean }[]
  >;
  readonly 'query-jobs': Command<undefined, readonly JobInfo[]>;
  readonly 'job-dismiss': Command<ById, Empty>;
  /** Of a job that is READY. Its reply says only that it has begun. */
  readonly 'job-complete': Command<ById, Empty>;
  /** Also of a job that is READY: it goes back. Its reply says only that it has begun. */
  readonly 'job-cancel': Command<ById, Empty>;
  /**
   * Copies a disk while it is used. `auto-finalize` stays on: without it the guest's I/O stands still from job-complete
   * to job-finalize.
   */
  readonly 'blockdev-mirror': Command<BlockdevMirror, Empty>;
  readonly 'query-iothreads': Command<undefined, readonly { readonly id: string; readonly 'thread-id': number }[]>;
  /** Only with a descriptor beside its bytes (SCM_RIGHTS): QmpClient.addDescriptor. /dev/fdset/N then opens it. */
  readonly 'add-fd': Command<
    { readonly 'fdset-id': number; readonly opaque?: string },
    { readonly 'fdset-id': number; readonly fd: number }
  >;
  /** One of a set, or all of it. While the VM is paused nothing is closed: ask again once it runs (monitor/misc.c). */
  readonly 'remove-fd': Command<{ readonly 'fdset-id': number; readonly fd?: number }, Empty>;
  readonly 'query-fdsets': Command<
    undefined,
    readonly {
      readonly 'fdset-id': number;
      readonly fds: readonly { readonly fd: number; readonly opaque?: string }[];
    }[]
  >;
  /** Its reply says only that it has begun; MIGRATION with `completed` or `failed` is the end (capability `events`). */
  readonly migrate: Command<{ readonly uri: string }, Empty>;
  /** For a QEMU started with `-incoming defer`. The reply comes before anything has been read. */
  readonly 'migrate-incoming': Command<{ readonly uri: string }, Empty>;
  readonly 'migrate-set-capabilities': Command<
    { readonly capabilities: readonly { readonly capability: MigrationCapability; readonly state: boolean }[] },
    Empty
  >;
  /** `status` is absent when there was no migration yet. */
  readonly 'query-migrate': Command<
    undefined,
    { readonly status?: MigrationStatus; readonly 'error-desc'?: string; readonly 'total-time'?: number }
  >;
  readonly system_powerdown: Command<undefined, Empty>;
  readonly system_reset: Command<undefined, Empty>;
  readonly stop: Command<undefined, Empty>;
  readonly cont: Command<undefined, Empty>;
  readonly quit: Command<undefined, Empty>;
}

interface DeviceAndPath {
  /** Absent when the object had no id: a virtio disk's backend is reported first, and without one. */
  readonly device?: string;
  /** QOM path, e.g. /machine/peripheral/ID. */
  readonly path: string;
}

/** Every event that qshim knows; the value is the event's `data`. */
export interface QmpEvents {
  /** Comes twice for each virtio disk: wait for the one whose `device` is yours. */
  readonly DEVICE_DELETED: DeviceAndPath;
  /** QEMU never sends it for PCI devices: a guest that refuses looks like silence. */
  readonly DEVICE_UNPLUG_GUEST_ERROR: DeviceAndPath;
  readonly SHUTDOWN: { readonly guest: boolean; readonly reason: string };
  readonly POWERDOWN: Empty;
  readonly RESET: { readonly guest: boolean; readonly reason: string };
  readonly STOP: Empty;
  readonly RESUME: Empty;
  readonly GUEST_PANICKED: { readonly action: string; readonly info?: { readonly type: string } };
  /** At most one a second: not a counter. */
  readonly BLOCK_IO_ERROR: {
    readonly device: string;
    readonly 'node-name'?: string;
    readonly operation: string;
    readonly action: string;
    readonly nospace?: boolean;
    readonly reason: string;
  };
  /** At most one a second for each port. */
  readonly VSERPORT_CHANGE: { readonly id: string; readonly open: boolean };
  /** Sent only with the migration capability `events`. */
  readonly MIGRATION: { readonly status: MigrationStatus };
  readonly JOB_STATUS_CHANGE: { readonly id: string; readonly status: JobStatus };
}

export type QmpCommandName = keyof QmpCommands;
export type QmpEventName = keyof QmpEvents;
export type ArgumentsOf<C extends QmpCommandName> = QmpCommands[C]['arguments'];
export type ReturnsOf<C extends QmpCommandName> = QmpCommands[C]['returns'];

/** An event as listeners get it; `timestampMs` is QEMU's wall clock since 1970. */
export type QmpEvent<E extends QmpEventName = QmpEventName> = {
  [K in E]: { readonly event: K; readonly data: QmpEvents[K]; readonly timestampMs: number };
}[E];
