import { messageOf } from '../base/errors.ts';
import { fdsets, listed, type InventoryList } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import { isQmpError } from '../qmp/errors.ts';
import type { BlockNodeInfo } from '../qmp/protocol.ts';
import { frontEndOf } from './front-end/registry.ts';
import type { VolumeHost } from './host.ts';
import type { CacheMode } from './model/disk.ts';
import type { HostLuksSpec } from './model/encryption.ts';
import { isLimited, limitsSeen } from './model/limits.ts';
import { endStrayMirrors } from './mirror/stray.ts';
import { generationOf, mediumOf, namesFor, parseDeviceId } from './model/names.ts';
import type { VolumeRecord } from './record.ts';
import { identifySource } from './looks.ts';
import { moduleOf, recogniseSource } from './source/registry.ts';
import type { Volume } from './volume.ts';

/**
 * Volumes without a journal: what QEMU has and the records do not. Mounts and the original spelling of paths are lost;
 * no volume is. Each is put back as PENDING, so that it becomes ATTACHED only once its driver has been seen, however
 * long that takes (reconcile.ts): it may be in use. What belongs to no volume is removed.
 */
export async function recoverVolumes(host: VolumeHost, qmp: QmpClient): Promise<void> {
  const [devices, nodes, objects] = await Promise.all([
    listed(qmp, 'device'),
    nodesWithPaths(qmp),
    listed(qmp, 'object'),
  ]);
  for (const { 'node-name': name = '' } of nodes) host.volumes.reserveGenerations(mediumOf(name) + 1);
  const known = new Set(host.volumes.all().flatMap(namesOf));
  for (const device of devices) {
    const parsed = parseDeviceId(device);
    if (parsed === undefined || known.has(device)) continue;
    // Whatever becomes of it, its names are not given to another volume.
    host.volumes.reserveGenerations(parsed.generation + 1);
    const helpers = [...objects].filter((name) => generationOf(name) === parsed.generation);
    try {
      await endStrayMirrors(qmp, parsed.generation, host.gone);
      const volume = host.volumes.restore(await recordFromQemu(host, qmp, { nodes, objects: helpers }, parsed));
      namesOf(volume).forEach((name) => known.add(name));
      host.log.warn({ volumeId: volume.id, generation: volume.generation }, 'volume recovered from qemu');
    } catch (error) {
      host.log.error({ device, problem: messageOf(error) }, 'volume could not be recovered; left as it is');
      // What it stands on is in use.
      nodes.forEach(({ 'node-name': name = '' }) => generationOf(name) === parsed.generation && known.add(name));
      helpers.forEach((name) => known.add(name));
    }
  }
  await removeLeftOvers(host, qmp, known);
}

/** Everything that QEMU may list of a volume. */
function namesOf(volume: Volume): readonly string[] {
  return volume.everyObject().flatMap(({ gone }) => gone);
}

/**
 * Removes what is named as a volume's, and belongs to none: nodes without a device, secrets of an interrupted change of
 * keys. A node that another stands on goes after it, or with it; so this goes round until nothing more goes.
 */
async function removeLeftOvers(host: VolumeHost, qmp: QmpClient, known: ReadonlySet<string>): Promise<void> {
  const strays = async (list: InventoryList): Promise<readonly string[]> =>
    [...(await listed(qmp, list))].filter((name) => generationOf(name) !== undefined && !known.has(name));
  const remove = async (list: InventoryList, act: (name: string) => Promise<unknown>): Promise<void> => {
    for (let left = await strays(list), before = Infinity; left.length > 0 && left.length < before;) {
      for (const name of left) {
        host.log.warn({ name }, 'block node, secret or descriptor without a volume removed');
        await act(name).catch((error: unknown) => {
          if (!isQmpError(error)) throw error;
        });
      }
      before = left.length;
      left = await strays(list);
      if (left.length === before) host.log.error({ left }, 'block nodes, secrets or descriptors not removed');
    }
  };
  await remove('node', (name) => qmp.run('blockdev-del', { 'node-name': name }));
  await remove('object', (id) => qmp.run('object-del', { id }));
  const numbers = new Map((await fdsets(qmp)).map(({ name, number }) => [name, number]));
  await remove('fdset', (name) => qmp.run('remove-fd', { 'fdset-id': numbers.get(name) ?? 0 }));
}

/** QEMU's nodes, where what it has opened of a set of descriptors has the path that was opened. */
async function nodesWithPaths(qmp: QmpClient): Promise<readonly BlockNodeInfo[]> {
  const [nodes, sets] = await Promise.all([qmp.run('query-named-block-nodes', { flat: true }), fdsets(qmp)]);
  const paths = new Map(sets.map(({ number, path }) => [`/dev/fdset/${number}`, path]));
  return nodes.map((node) => ({ ...node, file: paths.get(node.file) ?? node.file }));
}

async function recordFromQemu(
  { config, relays }: VolumeHost,
  qmp: QmpClient,
  { nodes, objects }: { readonly nodes: readonly BlockNodeInfo[]; readonly objects: readonly string[] },
  { volumeId, generation }: { readonly volumeId: string; readonly generation: number },
): Promise<VolumeRecord> {
  const backend = frontEndOf().backendPath(namesFor(volumeId, generation).device);
  const shown = (await qmp.run('query-block')).find(({ qdev }) => qdev === backend)?.inserted;
  const medium = mediumOf(shown?.['node-name'] ?? '');
  const names = namesFor(volumeId, generation, medium);
  const root = nodes.find((node) => node['node-name'] === names.root);
  const protocol = nodes.find((node) => node['node-name'] === names.protocol);
  if (root === undefined || protocol === undefined) throw new Error('its block nodes are not there');
  const { slot, placement, disk, writeThrough } = await frontEndOf().read(qmp, names.device);
  const source = recogniseSource({ root, protocol, objects, relayed: (socket) => relays.serverOf(socket) });
  const module = moduleOf(source);
  const limits = shown && limitsSeen(shown);
  const limited = limits !== undefined && isLimited(limits) ? { limits } : {};
  return {
    volumeId,
    generation,
    spec: {
      ...disk,
      source,
      readOnly: root.ro,
      cache: cacheMode(protocol.cache, writeThrough),
      aio: 'auto',
      discard: root.ro ? 'ignore' : disk.discard,
      detectZeroes: 'off',
      mount: undefined,
      encryption: root.drv === 'luks' ? RECOVERED_LUKS : undefined,
      ...limited,
    },
    slot,
    placement,
    backingIdentity: await identifySource(source, config),
    resolvedPath: module.describe(source),
    sizeBytes: root.image['virtual-size'],
    state: { state: 'pending', phase: 'attaching', slot, found: true },
    times: { pending: Date.now(), attached: undefined, detaching: undefined, removed: undefined },
    aio: undefined,
    mounted: false,
    encryption: undefined,
    creating: undefined,
    ...limited,
    ...(medium === 0 ? {} : { medium }),
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

function cacheMode(cache: BlockNodeInfo['cache'], writeThrough: boolean): CacheMode {
  if (cache['no-flush']) return 'unsafe';
  if (cache.direct) return writeThrough ? 'directsync' : 'none';
  return writeThrough ? 'writethrough' : 'writeback';
}
