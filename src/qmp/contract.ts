/**
 * `protocol.ts` as data, and the check of it against what a QEMU binary says about itself. `satisfies` makes tsc fail
 * when the types and this table drift apart; `checkContract` finds where the table and the binary do.
 */
import type { ArgumentsOf, QmpCommands, QmpEvents, ReturnsOf } from './protocol.ts';

type Since = `since ${number}.${number}`;
/**
 * A property of the disk's driver or of the port's: QEMU's schema does not describe it, `device-list-properties` does.
 */
type DeviceProperty = 'device property' | `device property ${Since}` | 'port property';
/** A member whose own members are not looked at: plain values, and `recursive` for a type that contains itself. */
type Leaf = true | Since | DeviceProperty;

type Elements<T> = T extends readonly (infer E)[] ? E : T;
type Objects<T> = Extract<Elements<T>, object>;
type KeysOf<T> = T extends unknown ? keyof T : never;
type MemberOf<T, K> = T extends unknown ? (K extends keyof T ? T[K] : never) : never;

/** The member names of T, of all its variants together, down to the last nested object. */
type ShapeOf<T> = [Objects<T>] extends [never]
  ? Leaf
  : { readonly [K in KeysOf<Objects<T>>]-?: ShapeOf<MemberOf<Objects<T>, K>> | 'recursive' | DeviceProperty };

type TopShapeOf<T> = [T] extends [undefined] ? Readonly<Record<string, never>> : ShapeOf<T>;

/** What a union chooses among, at the top or in `options`. */
type CaseOf<T> = Extract<
  MemberOf<Objects<T> | Objects<MemberOf<Objects<T>, 'options'>>, 'driver' | 'qom-type'>,
  string
>;

interface CommandContract<Arguments, Returns> {
  readonly arguments: TopShapeOf<Arguments>;
  readonly returns: TopShapeOf<Returns>;
  /** The variants of a union that qshim uses: each must exist, and only these are searched for members. */
  readonly cases?: Readonly<Record<CaseOf<Arguments>, true>>;
}

interface TypedContract {
  readonly commands: { readonly [C in keyof QmpCommands]: CommandContract<ArgumentsOf<C>, ReturnsOf<C>> };
  readonly events: { readonly [E in keyof QmpEvents]: TopShapeOf<QmpEvents[E]> };
}

const blockdevCommon = {
  driver: true,
  'node-name': true,
  'read-only': true,
  'auto-read-only': true,
  'force-share': true,
  discard: true,
  'detect-zeroes': true,
  cache: { direct: true, 'no-flush': true },
  filename: true,
  aio: true,
  locking: true,
  server: { type: true, path: true, host: true, port: true },
  export: true,
  'tls-creds': true,
  'tls-hostname': true,
  'reconnect-delay': true,
  'open-timeout': true,
} as const;

const ioThrottle = {
  iops: true,
  iops_rd: true,
  iops_wr: true,
  bps: true,
  bps_rd: true,
  bps_wr: true,
  iops_max: true,
  iops_rd_max: true,
  iops_wr_max: true,
  bps_max: true,
  bps_rd_max: true,
  bps_wr_max: true,
  iops_max_length: true,
  iops_rd_max_length: true,
  iops_wr_max_length: true,
  bps_max_length: true,
  bps_rd_max_length: true,
  bps_wr_max_length: true,
  iops_size: true,
  group: true,
} as const;

const latencyHistogram = { boundaries: true, bins: true } as const;

const deviceAndPath = { device: true, path: true } as const;

export const QMP_CONTRACT = {
  commands: {
    qmp_capabilities: { arguments: { enable: true }, returns: {} },
    'query-version': { arguments: {}, returns: { qemu: { major: true, minor: true, micro: true }, package: true } },
    'query-status': { arguments: {}, returns: { status: true, running: true } },
    'query-qmp-schema': {
      arguments: {},
      returns: {
        name: true,
        'meta-type': true,
        'arg-type': true,
        'ret-type': true,
        'element-type': true,
        members: { name: true, type: true },
        variants: { case: true, type: true },
        values: true,
      },
    },
    'query-kvm': { arguments: {}, returns: { enabled: true, present: true } },
    'query-uuid': { arguments: {}, returns: { UUID: true } },
    'blockdev-add': {
      arguments: {
        ...blockdevCommon,
        file: blockdevCommon,
        offset: true,
        size: true,
        backing: true,
        'key-secret': true,
        header: 'since 9.0',
        'throttle-group': true,
      },
      returns: {},
      cases: { raw: true, qcow2: true, luks: true, throttle: true, file: true, host_device: true, nbd: true },
    },
    'blockdev-del': { arguments: { 'node-name': true }, returns: {} },
    'blockdev-create': {
      arguments: {
        'job-id': true,
        options: {
          driver: true,
          filename: true,
          file: true,
          size: true,
          preallocation: true,
          'backing-file': true,
          'backing-fmt': true,
          'cluster-size': true,
          'key-secret': true,
          'iter-time': true,
          'cipher-alg': true,
          'cipher-mode': true,
          'ivgen-alg': true,
          'hash-alg': true,
        },
      },
      returns: {},
      cases: { file: true, qcow2: true, luks: true },
    },
    'x-blockdev-amend': {
      arguments: {
        'job-id': true,
        'node-name': true,
        options: {
          driver: true,
          state: true,
          'new-secret': true,
          'old-secret': true,
          secret: true,
          keyslot: true,
          'iter-time': true,
        },
      },
      returns: {},
      cases: { luks: true },
    },
    block_resize: { arguments: { 'node-name': true, size: true }, returns: {} },
    block_set_io_throttle: { arguments: { id: true, ...ioThrottle }, returns: {} },
    device_add: {
      arguments: {
        driver: true,
        id: true,
        bus: true,
        addr: 'device property',
        drive: 'device property',
        serial: 'device property',
        'num-queues': 'device property',
        'queue-size': 'device property',
        vectors: 'device property',
        logical_block_size: 'device property',
        physical_block_size: 'device property',
        'share-rw': 'device property',
        'write-cache': 'device property',
        'config-wce': 'device property',
        discard: 'device property',
        'write-zeroes': 'device property',
        werror: 'device property',
        rerror: 'device property',
        iothread: 'device property',
        'disable-legacy': 'device property',
        'disable-modern': 'device property',
        bootindex: 'device property',
        'iothread-vq-mapping': 'device property since 9.0',
        nr: 'port property',
        chardev: 'port property',
      },
      returns: {},
    },
    device_del: { arguments: { id: true }, returns: {} },
    'device-list-properties': { arguments: { typename: true }, returns: { name: true, type: true } },
    'object-add': {
      arguments: {
        'qom-type': true,
        id: true,
        data: true,
        file: true,
        format: true,
        keyid: true,
        iv: true,
        'poll-max-ns': true,
        dir: true,
        endpoint: true,
        'verify-peer': true,
        limits: {
          'iops-total': true,
          'iops-read': true,
          'iops-write': true,
          'bps-total': true,
          'bps-read': true,
          'bps-write': true,
        },
      },
      returns: {},
      cases: { secret: true, 'tls-creds-x509': true, iothread: true, 'throttle-group': true },
    },
    'object-del': { arguments: { id: true }, returns: {} },
    'qom-list': { arguments: { path: true }, returns: { name: true, type: true } },
    'qom-get': { arguments: { path: true, property: true }, returns: true },
    'qom-set': { arguments: { path: true, property: true, value: true }, returns: {} },
    'query-named-block-nodes': {
      arguments: { flat: true },
      returns: {
        'node-name': true,
        drv: true,
        file: true,
        ro: true,
        encrypted: true,
        cache: { writeback: true, direct: true, 'no-flush': true },
        image: { filename: true, format: true, 'virtual-size': true, 'actual-size': true },
      },
    },
    'query-block': {
      arguments: {},
      returns: {
        qdev: true,
        'io-status': true,
        inserted: {
          ...ioThrottle,
          'node-name': true,
          'dirty-bitmaps': {
            name: true,
            count: true,
            granularity: true,
            recording: true,
            busy: true,
            persistent: true,
            inconsistent: true,
          },
        },
      },
    },
    'query-blockstats': {
      arguments: { 'query-nodes': true },
      returns: {
        'node-name': true,
        qdev: true,
        parent: { stats: { wr_highest_offset: true } },
        stats: {
          rd_bytes: true,
          wr_bytes: true,
          unmap_bytes: true,
          rd_operations: true,
          wr_operations: true,
          flush_operations: true,
          unmap_operations: true,
          rd_total_time_ns: true,
          wr_total_time_ns: true,
          flush_total_time_ns: true,
          unmap_total_time_ns: true,
          rd_merged: true,
          wr_merged: true,
          unmap_merged: true,
          failed_rd_operations: true,
          failed_wr_operations: true,
          failed_flush_operations: true,
          failed_unmap_operations: true,
          invalid_rd_operations: true,
          invalid_wr_operations: true,
          invalid_flush_operations: true,
          invalid_unmap_operations: true,
          wr_highest_offset: true,
          idle_time_ns: true,
          account_failed: true,
          account_invalid: true,
          rd_latency_histogram: latencyHistogram,
          wr_latency_histogram: latencyHistogram,
          flush_latency_histogram: latencyHistogram,
        },
      },
    },
    'block-latency-histogram-set': { arguments: { id: true, boundaries: true }, returns: {} },
    'x-query-virtio-status': {
      arguments: { path: true },
      returns: {
        name: true,
        'num-vqs': true,
        started: true,
        broken: true,
        status: { statuses: true, 'unknown-statuses': true },
        'guest-features': { 'dev-features': true, transports: true },
      },
    },
    'query-pci': {
      arguments: {},
      returns: {
        bus: true,
        devices: {
          bus: true,
          slot: true,
          function: true,
          qdev_id: true,
          class_info: { class: true },
          pci_bridge: { bus: { number: true, secondary: true, subordinate: true }, devices: 'recursive' },
        },
      },
    },
    'chardev-add': {
      arguments: { id: true, backend: { type: true, data: { device: true, in: true, out: true } } },
      returns: {},
    },
    'chardev-remove': { arguments: { id: true }, returns: {} },
    'query-chardev': { arguments: {}, returns: { label: true, filename: true, 'frontend-open': true } },
    'query-jobs': {
      arguments: {},
      returns: {
        id: true,
        type: true,
        status: true,
        error: true,
        'current-progress': true,
        'total-progress': true,
      },
    },
    'job-dismiss': { arguments: { id: true }, returns: {} },
    'job-complete': { arguments: { id: true }, returns: {} },
    'job-cancel': { arguments: { id: true }, returns: {} },
    'blockdev-mirror': {
      arguments: {
        'job-id': true,
        device: true,
        target: true,
        sync: true,
        'copy-mode': true,
        'filter-node-name': true,
        speed: true,
        'on-source-error': true,
        'on-target-error': true,
        'auto-dismiss': true,
      },
      returns: {},
    },
    'query-iothreads': { arguments: {}, returns: { id: true, 'thread-id': true } },
    'add-fd': { arguments: { 'fdset-id': true, opaque: true }, returns: { 'fdset-id': true, fd: true } },
    'remove-fd': { arguments: { 'fdset-id': true, fd: true }, returns: {} },
    'query-fdsets': { arguments: {}, returns: { 'fdset-id': true, fds: { fd: true, opaque: true } } },
    migrate: { arguments: { uri: true }, returns: {} },
    'migrate-incoming': { arguments: { uri: true }, returns: {} },
    'migrate-set-capabilities': { arguments: { capabilities: { capability: true, state: true } }, returns: {} },
    'query-migrate': { arguments: {}, returns: { status: true, 'error-desc': true, 'total-time': true } },
    system_powerdown: { arguments: {}, returns: {} },
    system_reset: { arguments: {}, returns: {} },
    stop: { arguments: {}, returns: {} },
    cont: { arguments: {}, returns: {} },
    quit: { arguments: {}, returns: {} },
  },
  events: {
    DEVICE_DELETED: deviceAndPath,
    DEVICE_UNPLUG_GUEST_ERROR: deviceAndPath,
    SHUTDOWN: { guest: true, reason: true },
    POWERDOWN: {},
    RESET: { guest: true, reason: true },
    STOP: {},
    RESUME: {},
    GUEST_PANICKED: { action: true, info: { type: true } },
    BLOCK_IO_ERROR: {
      device: true,
      'node-name': true,
      operation: true,
      action: true,
      nospace: true,
      reason: true,
    },
    VSERPORT_CHANGE: { id: true, open: true },
    MIGRATION: { status: true },
    JOB_STATUS_CHANGE: { id: true, status: true },
  },
} as const satisfies TypedContract;
