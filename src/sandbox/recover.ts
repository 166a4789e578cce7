import { readdir, readFile, stat } from 'node:fs/promises';
import { messageOf } from '../base/errors.ts';
import { z } from 'zod';
import type { Placement } from '../volume/model/placement.ts';
import { namesFor, parseDeviceId, type QemuNames } from '../volume/model/plan.ts';
import type { HostLuksSpec } from '../volume/model/encryption.ts';
import { FIRST_BRIDGE_ADDRESS, SLOTS_PER_BRIDGE, type Slot } from '../volume/model/slots.ts';
import type { CacheMode, IoErrorPolicy, VolumeSpec } from '../volume/model/spec.ts';
import { HOSTNAME_PARAMETER } from '../qemu/argv.ts';
import { QemuProcess, identify, type ProcessIdentity } from '../qemu/process.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { BlockNodeInfo } from '../qmp/protocol.ts';
import { fileIdentity } from '../volume/backing.ts';
import type { JournalSandbox, JournalVolume } from '../store/journal.ts';
import type { Sandbox } from './sandbox.ts';

/**
 * Adoption without a journal: what can be known of a sandbox from its QEMU process and from QEMU itself. Used when the
 * journal is missing or cannot be understood. Labels, mounts and the original spelling of paths are lost; no volume is.
 */

/**
 * The QEMU process that serves the QMP socket of a state directory, by its command line; undefined when there is none.
 * VMs that this daemon's configuration did not make have other socket paths, and are never found.
 */
export async function findQemu(
  qmpSocket: string,
): Promise<{ readonly identity: ProcessIdentity; readonly args: readonly string[] } | undefined> {
  const wanted = `path=${qmpSocket.replaceAll(',', ',,')},`;
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    // Processes end while they are looked at.
    const text = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    const args = text.split('\0');
    if (!args.some((arg) => arg.startsWith('socket,id=qmp,') && arg.includes(wanted))) continue;
    const identity = await identify(Number(name));
    if (identity !== undefined) return { identity, args };
  }
  return undefined;
}

/** Ends the QEMU that serves this QMP socket, and answers with its pid once it is gone; undefined when there is none. */
export async function endQemuOf(qmpSocket: string): Promise<number | undefined> {
  const found = await findQemu(qmpSocket);
  const qemu = found && (await QemuProcess.adopt(found.identity));
  await qemu?.kill('SIGKILL');
  await qemu?.exited;
  return qemu?.pid;
}

const OWN_HOSTNAME = new RegExp(`^${HOSTNAME_PARAMETER.replaceAll('.', '\\.')}\\S+ ?`);
const TEMPLATE_MEMORY = /,mem-path=[^,]*\/([0-9a-f]{64})\/memory,/;

/** The sandbox's own record, read back from the arguments that qemu/argv.ts made; undefined when they are not ours. */
export function sandboxFromArguments(
  args: readonly string[],
  identity: ProcessIdentity,
  configuredParameters: string,
): JournalSandbox | undefined {
  const valueOf = (flag: string): string => args[args.indexOf(flag) + 1] ?? '';
  const id = /^guest=qshim-(.+?),debug-threads=on$/.exec(valueOf('-name'))?.[1]?.replaceAll(',,', ',');
  const vcpus = Number(/^cpus=([0-9]+)/.exec(valueOf('-smp'))?.[1]);
  const memoryMib = Number(/^size=([0-9]+)M/.exec(valueOf('-m'))?.[1]);
  if (id === undefined || !Number.isInteger(vcpus) || !Number.isInteger(memoryMib)) return undefined;
  const accelerator = valueOf('-machine').includes('accel=kvm') ? 'kvm' : 'tcg';
  const iothreads = args.filter((arg) => arg.startsWith('iothread,id=iothread')).length;
  const bridges = args.filter((arg) => arg.startsWith('pci-bridge,id=bridge')).length;
  const parameters = valueOf('-append').replace(OWN_HOSTNAME, '');
  const templateId = TEMPLATE_MEMORY.exec(args.find((arg) => arg.startsWith('memory-backend-file,')) ?? '')?.[1] ?? '';
  return {
    id,
    spec: {
      vcpus,
      memoryMib,
      kernel: valueOf('-kernel'),
      initrd: valueOf('-initrd'),
      kernelParameters: parameters.startsWith(configuredParameters)
        ? parameters.slice(configuredParameters.length).trim()
        : parameters,
      accelerator: 'auto',
      volumeCapacity: bridges * SLOTS_PER_BRIDGE,
      iothreads,
      labels: {},
      readyWhen: 'agent',
      template: 'auto',
    },
    uuid: valueOf('-uuid'),
    createdAtMs: Date.now(),
    accelerator,
    acceleratorReason: 'seen in the running QEMU',
    state: 'running',
    cause: undefined,
    process: identity,
    nextGeneration: 1,
    timings: [],
    start: { kind: templateId === '' ? 'cold' : 'clone', templateId, reason: '' },
  };
}

/**
 * Finds volumes that QEMU has and the records do not. Each is put back as PENDING, so that it becomes ATTACHED only once
 * its driver has been seen; block nodes without a device are removed.
 */
export async function recoverVolumes(sandbox: Sandbox, qmp: QmpClient): Promise<void> {
  const [children, nodes] = await Promise.all([
    qmp.run('qom-list', { path: '/machine/peripheral' }),
    qmp.run('query-named-block-nodes', { flat: true }),
  ]);
  const known = new Set(sandbox.volumes.all().flatMap((volume) => allNames(volume.names)));
  for (const { name } of children) {
    const parsed = parseDeviceId(name);
    if (parsed === undefined || known.has(name)) continue;
    // Whatever becomes of it, its names are not given to another volume.
    sandbox.volumes.reserveGenerations(parsed.generation + 1);
    try {
      const record = await volumeFromQemu(qmp, nodes, parsed);
      const volume = sandbox.volumes.restore(record);
      allNames(volume.names).forEach((one) => known.add(one));
      sandbox.log.warn({ volumeId: volume.id, generation: volume.generation }, 'volume recovered from qemu');
    } catch (error) {
      sandbox.log.error({ device: name, problem: messageOf(error) }, 'volume could not be recovered; left as it is');
    }
  }
  await removeLeftOvers(sandbox, qmp, nodes, known);
}

/** Nodes and secrets that belong to no volume; format nodes first, for they hold their protocol nodes. */
async function removeLeftOvers(
  sandbox: Sandbox,
  qmp: QmpClient,
  nodes: readonly BlockNodeInfo[],
  known: ReadonlySet<string>,
): Promise<void> {
  const remove = async (name: string, work: Promise<unknown>): Promise<void> => {
    sandbox.log.warn({ name }, 'block node or secret without a volume removed');
    await work.catch((error: unknown) => {
      sandbox.log.error({ name, problem: messageOf(error) }, 'block node or secret not removed');
    });
  };
  for (const suffix of ['fmt', 'file']) {
    for (const { 'node-name': name = '' } of nodes) {
      const [, generation, kind] = /^vol-([0-9]+)-(fmt|file)$/.exec(name) ?? [];
      if (kind !== suffix || known.has(name)) continue;
      // The protocol node of any other kind of format node goes with it.
      const above = nodes.find((one) => one['node-name'] === `vol-${generation}-fmt`);
      if (kind === 'file' && above !== undefined && above.drv !== 'luks') continue;
      await remove(name, qmp.run('blockdev-del', { 'node-name': name }));
    }
  }
  for (const { name } of await qmp.run('qom-list', { path: '/objects' })) {
    if (/^vol-[0-9]+-(fmt-amend-(old|new)-)?(key|master)$/.test(name) && !known.has(name))
      await remove(name, qmp.run('object-del', { id: name }));
  }
}

function allNames({ device, formatNode, fileNode, keySecret, masterSecret }: QemuNames): readonly string[] {
  return [device, formatNode, fileNode, keySecret, masterSecret];
}

async function volumeFromQemu(
  qmp: QmpClient,
  nodes: readonly BlockNodeInfo[],
  { volumeId, generation }: { readonly volumeId: string; readonly generation: number },
): Promise<JournalVolume> {
  const names = namesFor(volumeId, generation);
  const get = (property: string): Promise<unknown> =>
    qmp.run('qom-get', { path: `/machine/peripheral/${names.device}`, property });
  const format = nodes.find((node) => node['node-name'] === names.formatNode);
  const file = nodes.find((node) => node['node-name'] === names.fileNode);
  if (format === undefined || file === undefined) throw new Error('its block nodes are not there');
  const slot = slotFrom(String(await get('parent_bus')), Number(await get('addr')));
  const writeThrough = String(await get('write-cache')) === 'off';
  const discard = (await get('discard')) === true ? 'unmap' : 'ignore';
  const spec: VolumeSpec = {
    source: {
      kind: file.drv === 'host_device' ? 'block-device' : format.drv === 'qcow2' ? 'qcow2-file' : 'raw-file',
      path: file.file,
    },
    readOnly: format.ro,
    cache: cacheMode(file.cache, writeThrough),
    aio: 'auto',
    discard: format.ro ? 'ignore' : discard,
    detectZeroes: 'off',
    serial: String(await get('serial')),
    queues: Number(await get('num-queues')),
    logicalBlockSize: Number(await get('logical_block_size')),
    physicalBlockSize: Number(await get('physical_block_size')),
    mount: undefined,
    writeErrors: errorPolicy(await get('werror'), 'enospc'),
    readErrors: errorPolicy(await get('rerror'), 'report'),
    encryption: format.drv === 'luks' ? RECOVERED_LUKS : undefined,
  };
  // A file that was deleted under the VM has no identity that another volume could ask for.
  const found = await stat(file.file).catch(() => undefined);
  return {
    volumeId,
    generation,
    spec,
    slot,
    placement: await placementFrom(get, Number(await get('num-queues'))),
    backingIdentity: found === undefined ? `gone:${file.file}` : fileIdentity(found),
    resolvedPath: file.file,
    sizeBytes: format.image['virtual-size'],
    state: { state: 'pending', phase: 'attaching', slot },
    times: { pending: Date.now(), attached: undefined, detaching: undefined, removed: undefined },
    aio: undefined,
    mounted: false,
    encryption: undefined,
    creating: undefined,
  };
}

/**
 * `iothread` is the object's path, `iothread-vq-mapping` (QEMU 9.0) a list; both are empty for the main loop. It serves
 * book-keeping only: what cannot be read must not cost the volume.
 */
async function placementFrom(get: (property: string) => Promise<unknown>, queues: number): Promise<Placement> {
  const read = (property: string): Promise<unknown> => get(property).catch(() => undefined);
  const [vectors, iothread, mapping] = await Promise.all(['vectors', 'iothread', 'iothread-vq-mapping'].map(read));
  const mapped = z.array(z.object({ iothread: z.string() })).safeParse(mapping).data ?? [];
  const single = typeof iothread === 'string' ? (iothread.split('/').at(-1) ?? '') : '';
  return {
    vectors: typeof vectors === 'number' ? vectors : queues + 1,
    iothreads: mapped.length > 0 ? mapped.map((one) => one.iothread) : single === '' ? [] : [single],
  };
}

/** Where its key is to be had is lost with the journal; it is open, and needs none. */
const RECOVERED_LUKS: HostLuksSpec = {
  kind: 'host-luks',
  key: undefined,
  format: 'never',
  sizeBytes: 0,
  cipher: 'aes-256',
  hash: 'sha256',
  iterationMs: 2000,
  uuid: '',
};

/** `parent_bus` is ".../bridge0/bridge0" (the bus has the bridge's id); `addr` is the devfn. */
function slotFrom(parentBus: string, devfn: number): Slot {
  const id = parentBus.split('/').at(-1) ?? '';
  const index = Number(/^bridge([0-9]+)$/.exec(id)?.[1]);
  if (!Number.isInteger(index) || !Number.isInteger(devfn))
    throw new Error(`it sits on ${parentBus}, address ${devfn}`);
  return { bridge: { id, address: FIRST_BRIDGE_ADDRESS + index }, device: devfn >> 3 };
}

function cacheMode(cache: BlockNodeInfo['cache'], writeThrough: boolean): CacheMode {
  if (cache['no-flush']) return 'unsafe';
  if (cache.direct) return writeThrough ? 'directsync' : 'none';
  return writeThrough ? 'writethrough' : 'writeback';
}

function errorPolicy(value: unknown, fallback: IoErrorPolicy): IoErrorPolicy {
  return value === 'report' || value === 'ignore' || value === 'stop' || value === 'enospc' ? value : fallback;
}
