import { statSync } from 'node:fs';
import { schemaOfContract } from './contract-schema.ts';
import { NO_REPLY, QmpFailure, type Arguments, type FakeQmp, type Handler } from './fake-qmp.ts';

/** Of the numbers that descriptors have in it. */
const FIRST_FD = 20;
const GIB = 1024 * 1024 * 1024;
const PERIPHERAL = '/machine/peripheral';

/** What x-query-virtio-status of QEMU 7.2 lists for a disk whose driver is live. */
export const DRIVER_LIVE_STATUSES: readonly string[] = [
  'VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready',
  'VIRTIO_CONFIG_S_FEATURES_OK: Feature negotiation complete',
  'VIRTIO_CONFIG_S_DRIVER: Guest OS compatible with device',
  'VIRTIO_CONFIG_S_ACKNOWLEDGE: Valid virtio device found',
];

/** What SeaBIOS and Linux acknowledge of `guest-features.transports`. */
const FIRMWARE_TRANSPORTS = ['VIRTIO_F_VERSION_1: Device compliant for v1 spec (legacy)'];
const LINUX_TRANSPORTS = [
  'VIRTIO_RING_F_EVENT_IDX: Used & avail. event fields enabled',
  'VIRTIO_RING_F_INDIRECT_DESC: Indirect descriptors supported',
  ...FIRMWARE_TRANSPORTS,
];

export interface FakeQemuModelOptions {
  /** Ids of the pci-bridges; default: any bus name is taken and listed once a device sits on it. */
  readonly bridges?: readonly string[];
  /** Default 'at once'. */
  readonly unplug?: 'at once' | 'manual';
  /** Default 'live': the guest's driver is there as soon as the device is. */
  readonly driver?: 'live' | 'manual';
}

interface ModelNode {
  readonly options: Arguments;
  /** Node name of the parent that owns this node, undefined for a node that blockdev-add named at the top. */
  readonly owner: string | undefined;
  readonly child: string | undefined;
  virtualSizeBytes: number;
}

interface ModelDevice {
  readonly args: Arguments;
  statuses: readonly string[];
  transports: readonly string[];
  unplugAsked: boolean;
  reads: number;
  /** As block_set_io_throttle was given them. */
  limits: Arguments;
  /** Of its latency histograms; undefined: it has none. */
  boundaries?: readonly number[];
}

/** What a virtio-blk-pci of the real QEMU says of properties that it was not given. */
const DEVICE_DEFAULTS: Readonly<Record<string, unknown>> = {
  logical_block_size: 512,
  physical_block_size: 512,
  'write-cache': 'auto',
  discard: true,
  'share-rw': false,
  werror: 'auto',
  rerror: 'auto',
};

/**
 * Block nodes and hot-plugged devices as QEMU 7.2 keeps them: who is in use, which error class refuses what, and which
 * events a removal sends (twice DEVICE_DELETED, the first without an id). Give a test's own behaviour with `fake.on`
 * after making the model; state outlives a dropped connection, as QEMU's does.
 */
export class FakeQemuModel {
  readonly nodes = new Map<string, ModelNode>();
  readonly devices = new Map<string, ModelDevice>();
  /** By id; the arguments of object-add. */
  readonly objects = new Map<string, Arguments>();
  /** By number; what add-fd called them. No descriptor comes with it: Node drops what comes beside bytes. */
  readonly fdsets = new Map<number, string>();
  /**
   * 'manual': device_del is taken and nothing happens, as with a guest that is booting. Ask again after changing it.
   */
  unplug: 'at once' | 'manual';
  driver: 'live' | 'manual';
  status: 'running' | 'paused' | 'io-error' = 'running';
  readonly #fake: FakeQmp;
  readonly #bridges: readonly string[] | undefined;
  #anonymousNodes = 0;

  constructor(fake: FakeQmp, options: FakeQemuModelOptions = {}) {
    this.#fake = fake;
    this.#bridges = options.bridges;
    this.unplug = options.unplug ?? 'at once';
    this.driver = options.driver ?? 'live';
    this.#serveBlock();
    this.#serveDevices();
    this.#serveObjects();
    this.#serveQueries();
    this.#serveLimits();
    this.#serveMachine();
  }

  /** The guest's driver takes the disk over. */
  driverLive(id: string): void {
    const device = this.#device(id);
    device.statuses = DRIVER_LIVE_STATUSES;
    device.transports = LINUX_TRANSPORTS;
    device.reads += 1;
  }

  /**
   * The firmware drives the disk while it looks for something to boot: DRIVER_OK and a read, and no guest system yet.
   */
  firmwareLive(id: string): void {
    this.driverLive(id);
    this.#device(id).transports = FIRMWARE_TRANSPORTS;
  }

  /** The guest begins to boot: no driver drives the disk. */
  reboot(id: string): void {
    const device = this.#device(id);
    device.statuses = [];
    device.transports = [];
  }

  /** The guest's driver gives the disk up, as Linux does when it is out of interrupt vectors. */
  driverFailed(id: string): void {
    this.#device(id).statuses = ['VIRTIO_CONFIG_S_FAILED: Error in guest, device failed'];
  }

  /** The guest lets go of a device, asked or not: the device goes, and both events are sent. */
  completeUnplug(id: string): void {
    this.#device(id);
    this.devices.delete(id);
    this.#fake.emit('DEVICE_DELETED', { path: `${PERIPHERAL}/${id}/virtio-backend` });
    this.#fake.emit('DEVICE_DELETED', { device: id, path: `${PERIPHERAL}/${id}` });
  }

  #serveBlock(): void {
    this.#fake
      .on('blockdev-add', (args) => {
        const name = text(args, 'node-name');
        this.#checkNewNode(args);
        this.#addNode(name, args, undefined);
      })
      .on('add-fd', (args) => {
        const number = Number(args['fdset-id']);
        this.fdsets.set(number, typeof args['opaque'] === 'string' ? args['opaque'] : '');
        return { 'fdset-id': number, fd: FIRST_FD + number };
      })
      .on('remove-fd', (args) => {
        const number = Number(args['fdset-id']);
        if (!this.fdsets.has(number)) throw new QmpFailure(`File descriptor named 'fdset-id:${number}' not found`);
        // As the real one, which closes nothing while it is paused (monitor_fdset_cleanup).
        if (this.status === 'running') this.fdsets.delete(number);
      })
      .on('query-fdsets', () =>
        [...this.fdsets].map(([number, opaque]) => ({
          'fdset-id': number,
          fds: [{ fd: FIRST_FD + number, ...(opaque === '' ? {} : { opaque }) }],
        })),
      )
      .on('blockdev-del', (args) => {
        const name = text(args, 'node-name');
        const node = this.nodes.get(name);
        if (node === undefined) throw new QmpFailure(`Failed to find node with node-name='${name}'`);
        if (node.owner !== undefined) throw new QmpFailure(`Node ${name} is not owned by the monitor`);
        if (this.#nodeInUse(name)) throw new QmpFailure(`Node ${name} is in use`);
        this.nodes.delete(name);
        if (node.child !== undefined && this.nodes.get(node.child)?.owner === name) this.nodes.delete(node.child);
      })
      .on('block_resize', (args) => {
        const node = this.nodes.get(text(args, 'node-name'));
        if (node === undefined)
          throw new QmpFailure(`Cannot find device='' nor node-name='${text(args, 'node-name')}'`);
        node.virtualSizeBytes = Number(args['size']);
      });
  }

  #checkNewNode(args: Arguments): void {
    const file = args['file'];
    for (const name of [args['node-name'], isObject(file) ? file['node-name'] : undefined]) {
      if (typeof name !== 'string') continue;
      if (this.nodes.has(name)) throw new QmpFailure(`Duplicate nodes with node-name='${name}'`);
      if (name.length > 31) throw new QmpFailure('Node name too long');
    }
    if (typeof file === 'string' && !this.nodes.has(file)) {
      throw new QmpFailure(`Cannot find device='${file}' nor node-name='${file}'`);
    }
    const secret = args['key-secret'];
    if (typeof secret === 'string' && !this.objects.has(secret)) throw new QmpFailure(`No secret with id '${secret}'`);
  }

  #addNode(name: string, options: Arguments, owner: string | undefined): void {
    const file = options['file'];
    let child = typeof file === 'string' ? file : undefined;
    if (isObject(file)) {
      this.#anonymousNodes += 1;
      child = typeof file['node-name'] === 'string' ? file['node-name'] : `#block${this.#anonymousNodes}`;
      this.#addNode(child, file, name);
    }
    const path = this.#pathOf(options['filename']);
    const length = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false })?.size;
    const below = child === undefined ? undefined : this.nodes.get(child)?.virtualSizeBytes;
    this.nodes.set(name, { options, owner, child, virtualSizeBytes: length ?? below ?? GIB });
  }

  /** What was opened: of a set of descriptors, the path that its name holds. */
  #pathOf(filename: unknown): string | undefined {
    if (typeof filename !== 'string') return undefined;
    const [, number] = /^\/dev\/fdset\/(\d+)$/.exec(filename) ?? [];
    if (number === undefined) return filename;
    const opaque = this.fdsets.get(Number(number));
    if (opaque === undefined) throw new QmpFailure(`Could not open '${filename}': No such file or directory`);
    return opaque.slice(opaque.indexOf(' ') + 1);
  }

  #nodeInUse(name: string): boolean {
    const byDevice = [...this.devices.values()].some((device) => device.args['drive'] === name);
    return byDevice || [...this.nodes.values()].some((node) => node.child === name);
  }

  #serveDevices(): void {
    this.#fake
      .on('device_add', (args) => {
        const id = text(args, 'id');
        this.#checkNewDevice(id, args);
        this.devices.set(id, { args, statuses: [], transports: [], unplugAsked: false, reads: 0, limits: {} });
        if (this.driver === 'live') this.driverLive(id);
      })
      .on('device_del', (args, { reply }) => {
        const id = text(args, 'id');
        const device = this.devices.get(id);
        if (device === undefined) throw new QmpFailure(`Device '${id}' not found`, 'DeviceNotFound');
        device.unplugAsked = true;
        reply();
        if (this.unplug === 'at once') setImmediate(() => this.#completeIfThere(device, id));
        return NO_REPLY;
      });
  }

  #completeIfThere(device: ModelDevice, id: string): void {
    if (this.devices.get(id) === device) this.completeUnplug(id);
  }

  #checkNewDevice(id: string, args: Arguments): void {
    const bus = text(args, 'bus');
    if (this.devices.has(id)) throw new QmpFailure(`Duplicate device ID '${id}'`);
    if (this.#bridges?.includes(bus) === false) throw new QmpFailure(`Bus '${bus}' not found`);
    const disk = isDisk(args);
    if (disk && !this.nodes.has(text(args, 'drive'))) {
      throw new QmpFailure(`Property 'virtio-blk-device.drive' can't find value '${text(args, 'drive')}'`);
    }
    for (const [otherId, other] of this.devices) {
      if (other.args['bus'] === bus && slotOf(other.args) === slotOf(args)) {
        const slot = `slot ${slotOf(args)} function 0`;
        const [wanted, there] = [text(args, 'driver'), text(other.args, 'driver')];
        throw new QmpFailure(`PCI: ${slot} not available for ${wanted}, in use by ${there},id=${otherId}`);
      }
      if (disk && isDisk(other.args) && this.#conflicts(other.args, args))
        throw new QmpFailure('Failed to get "write" lock');
    }
  }

  /** QEMU's file locks: a writer shares an image with nobody. */
  #conflicts(one: Arguments, two: Arguments): boolean {
    const readOnly = (args: Arguments): boolean => this.nodes.get(text(args, 'drive'))?.options['read-only'] === true;
    if ((readOnly(one) && readOnly(two)) || (one['share-rw'] === true && two['share-rw'] === true)) return false;
    return this.#pathOf(this.#filename(text(one, 'drive'))) === this.#pathOf(this.#filename(text(two, 'drive')));
  }

  #filename(nodeName: string): string {
    const node = this.nodes.get(nodeName);
    if (node?.child !== undefined) return this.#filename(node.child);
    const filename = node?.options['filename'];
    return typeof filename === 'string' ? filename : '';
  }

  #serveObjects(): void {
    this.#fake
      .on('object-add', (args) => {
        const id = text(args, 'id');
        if (this.objects.has(id)) {
          throw new QmpFailure(`attempt to add duplicate property '${id}' to object (type 'container')`);
        }
        this.objects.set(id, args);
      })
      .on('object-del', (args) => {
        const id = text(args, 'id');
        const options = [...this.nodes.values()].map((node) => node.options);
        const inUse =
          options.some((node) => node['throttle-group'] === id) ||
          [...this.devices.values()].some((device) => device.args['iothread'] === id);
        if (inUse) throw new QmpFailure(`object '${id}' is in use, can not be deleted`);
        if (!this.objects.delete(id)) throw new QmpFailure(`object '${id}' not found`);
      })
      .on('qom-list', (args) => this.#qomList(text(args, 'path')))
      .on('qom-get', (args) => this.#qomGet(text(args, 'path'), text(args, 'property')));
  }

  #qomList(path: string): unknown {
    const type = { name: 'type', type: 'string' };
    if (path === PERIPHERAL) {
      const bridges = (this.#bridges ?? []).map((name) => ({ name, type: 'child<pci-bridge>' }));
      const devices = [...this.devices].map(([name, { args }]) => ({ name, type: `child<${text(args, 'driver')}>` }));
      return [type, ...bridges, ...devices];
    }
    if (path === '/objects') {
      const children = [...this.objects].map(([name, args]) => ({ name, type: `child<${text(args, 'qom-type')}>` }));
      return [type, ...children];
    }
    throw new QmpFailure(`Device '${path}' not found`, 'DeviceNotFound');
  }

  #qomGet(path: string, property: string): unknown {
    const device = this.devices.get(path.slice(PERIPHERAL.length + 1));
    if (device === undefined) throw new QmpFailure(`Device '${path}' not found`, 'DeviceNotFound');
    if (property === 'addr') return slotOf(device.args) * 8;
    if (property === 'parent_bus') return `/machine/bridges/${String(device.args['bus'])}`;
    const value = device.args[property] ?? DEVICE_DEFAULTS[property];
    if (value === undefined) throw new QmpFailure(`Property 'virtio-blk-pci.${property}' not found`);
    return value;
  }

  /** As QEMU 7.2: each call replaces all, of the whole group; without a group a disk stays in the one that it is in. */
  #serveLimits(): void {
    const disks = (): [string, ModelDevice][] => [...this.devices].filter(([, { args }]) => isDisk(args));
    const pathOf = (id: string): string => `${PERIPHERAL}/${id}/virtio-backend`;
    this.#fake
      .on('block_set_io_throttle', (args) => {
        const [, device] = disks().find(([id]) => pathOf(id) === args['id']) ?? [];
        if (device === undefined) throw new QmpFailure(`Device '${text(args, 'id')}' not found`, 'DeviceNotFound');
        const { id: path, ...values } = args;
        const limited = Object.entries(values).some(([name, value]) => name !== 'group' && Number(value) > 0);
        const group = values['group'] ?? device.limits['group'] ?? path;
        if (!limited) {
          device.limits = {};
          return;
        }
        device.limits = { ...values, group };
        for (const [, other] of disks()) if (other.limits['group'] === group) other.limits = device.limits;
      })
      .on('query-block', () =>
        disks().map(([id, { args, limits }]) => ({
          device: '',
          qdev: pathOf(id),
          'io-status': 'ok',
          inserted: { 'node-name': args['drive'], ...NO_LIMITS, ...limits },
        })),
      );
  }

  #serveQueries(): void {
    this.#fake
      .on('query-named-block-nodes', () => [...this.nodes].map(([name, node]) => this.#nodeInfo(name, node)))
      .on('query-blockstats', () =>
        [...this.devices]
          .filter(([, { args }]) => isDisk(args))
          .map(([id, device]) => ({
            'node-name': device.args['drive'],
            qdev: `${PERIPHERAL}/${id}/virtio-backend`,
            parent: { stats: { wr_highest_offset: 0 } },
            stats: {
              ...NO_STATS,
              ...histogramsOf(device),
              rd_operations: device.reads,
              rd_bytes: device.reads * 4096,
            },
          })),
      )
      .on('block-latency-histogram-set', (args) => {
        const id = text(args, 'id');
        const device = this.devices.get(/^\/machine\/peripheral\/(.+)\/virtio-backend$/.exec(id)?.[1] ?? '');
        if (device === undefined) throw new QmpFailure(`Device '${id}' not found`, 'DeviceNotFound');
        device.boundaries = args['boundaries'] as readonly number[];
      })
      .on('x-query-virtio-status', (args) => {
        const path = text(args, 'path');
        const [, id] = /^\/machine\/peripheral\/(.+)\/virtio-backend$/.exec(path) ?? [];
        const device = id === undefined ? undefined : this.devices.get(id);
        if (device === undefined) throw new QmpFailure(`Path ${path} is not a VirtIODevice`);
        const started = device.statuses === DRIVER_LIVE_STATUSES;
        const { statuses, transports } = device;
        const features = { 'dev-features': [], transports };
        const status = { statuses };
        return { name: 'virtio-blk', 'num-vqs': 1, started, broken: false, status, 'guest-features': features };
      })
      .on('query-pci', () => [{ bus: 0, devices: this.#bridgeList() }])
      .on('query-qmp-schema', () => schemaOfContract());
  }

  #nodeInfo(name: string, node: ModelNode): unknown {
    const { driver, cache } = node.options;
    const filename = this.#filename(name);
    const { direct = false, 'no-flush': noFlush = false } = isObject(cache) ? cache : {};
    return {
      'node-name': name,
      drv: driver,
      file: filename,
      ro: node.options['read-only'] === true,
      encrypted: driver === 'luks',
      cache: { writeback: true, direct, 'no-flush': noFlush },
      image: { filename, format: driver, 'virtual-size': node.virtualSizeBytes, 'actual-size': 0 },
    };
  }

  #bridgeList(): unknown[] {
    const buses = this.#bridges ?? [...new Set([...this.devices.values()].map((device) => text(device.args, 'bus')))];
    return buses.map((id, index) => {
      const number = index + 1;
      const devices = [...this.devices]
        .filter(([, device]) => device.args['bus'] === id)
        .map(([deviceId, device]) => pciDevice(deviceId, number, slotOf(device.args), 0x0100));
      const bus = { number: 0, secondary: number, subordinate: number };
      return { ...pciDevice(id, 0, 16 + index, 0x0604), pci_bridge: { bus, devices } };
    });
  }

  #serveMachine(): void {
    this.#fake
      .on('query-status', () => ({ status: this.status, running: this.status === 'running' }))
      .on('query-kvm', () => ({ enabled: false, present: true }))
      .on('query-uuid', () => ({ UUID: '00000000-0000-0000-0000-000000000000' }))
      .on('stop', this.#change('paused', 'STOP'))
      .on('cont', this.#change('running', 'RESUME'))
      .on('system_powerdown', (_args, { server }) => server.emit('POWERDOWN', {}))
      .on('system_reset', (_args, { server, reply }) => {
        server.emit('RESET', { guest: false, reason: 'host-qmp-system-reset' });
        reply();
        // A reset ends every unplug that was asked for, even without a guest.
        for (const [id, device] of this.devices) if (device.unplugAsked) this.completeUnplug(id);
        return NO_REPLY;
      })
      .on('quit', (_args, { server, reply }) => {
        server.emit('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' });
        reply();
        server.hangUp();
        return NO_REPLY;
      });
    for (const name of ['query-jobs', 'query-iothreads', 'query-chardev'] as const) {
      this.#fake.on(name, () => []);
    }
  }

  #change(status: 'running' | 'paused', event: 'STOP' | 'RESUME'): Handler {
    return (_args, { server }) => {
      if (this.status !== status) server.emit(event, {});
      this.status = status;
    };
  }

  #device(id: string): ModelDevice {
    const device = this.devices.get(id);
    if (device === undefined) throw new Error(`the model has no device ${id}`);
    return device;
  }
}

const NO_LIMITS = { iops: 0, iops_rd: 0, iops_wr: 0, bps: 0, bps_rd: 0, bps_wr: 0 };

const NO_STATS = {
  ...Object.fromEntries(
    ['rd', 'wr', 'flush', 'unmap'].flatMap((kind) =>
      [`${kind}_operations`, `${kind}_total_time_ns`, `failed_${kind}_operations`, `invalid_${kind}_operations`].map(
        (name) => [name, 0],
      ),
    ),
  ),
  rd_bytes: 0,
  wr_bytes: 0,
  unmap_bytes: 0,
  rd_merged: 0,
  wr_merged: 0,
  unmap_merged: 0,
  wr_highest_offset: 0,
  account_failed: true,
  account_invalid: true,
};

/** As a new device's histograms are: all requests of the model are as fast as can be. */
function histogramsOf({ boundaries, reads }: ModelDevice): object {
  if (boundaries === undefined) return {};
  const none = boundaries.map(() => 0);
  return {
    rd_latency_histogram: { boundaries, bins: [reads, ...none] },
    wr_latency_histogram: { boundaries, bins: [0, ...none] },
    flush_latency_histogram: { boundaries, bins: [0, ...none] },
  };
}

function pciDevice(id: string, bus: number, slot: number, classCode: number): object {
  return { bus, slot, function: 0, qdev_id: id, class_info: { class: classCode } };
}

/** "0x1f", "1f" and "1f.0" are slot 31: QEMU reads hexadecimal. */
/** Other devices have no image: those of fences. */
function isDisk(args: Arguments): boolean {
  return args['driver'] === 'virtio-blk-pci';
}

function slotOf(args: Arguments): number {
  const address = args['addr'];
  return typeof address === 'string' ? Number.parseInt(address, 16) : 0;
}

function text(args: Arguments, name: string): string {
  const value = args[name];
  if (typeof value !== 'string') throw new QmpFailure(`Parameter '${name}' is missing`);
  return value;
}

function isObject(value: unknown): value is Arguments {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
