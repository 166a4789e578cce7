import { z } from 'zod';
import { PERIPHERALS } from '../../qemu/inventory.ts';
import type { QmpClient } from '../../qmp/client.ts';
import type { DiskSpec, IoErrorPolicy } from '../model/disk.ts';
import type { QemuNames } from '../model/names.ts';
import { deviceObject, type DeviceObject } from '../model/objects.ts';
import type { Placement } from '../model/placement.ts';
import { FIRST_BRIDGE_ADDRESS, qemuAddress, type Slot } from '../model/slots.ts';
import type { FrontEndModule, Seat, SeenDevice } from './module.ts';

/** A virtio disk behind one of the VM's PCI bridges. */
export const virtioBlkPci: FrontEndModule = {
  driver: 'virtio-blk-pci',
  device,
  statusPath: backendPath,
  backendPath,
  read,
};

function backendPath(id: string): string {
  return `${PERIPHERALS}/${id}/virtio-backend`;
}

function device(disk: DiskSpec, names: QemuNames, { slot, placement }: Seat): DeviceObject {
  const writeThrough = disk.cache === 'writethrough' || disk.cache === 'directsync';
  return deviceObject({
    driver: 'virtio-blk-pci',
    id: names.device,
    bus: slot.bridge.id,
    addr: qemuAddress(slot.device),
    drive: names.root,
    serial: disk.serial,
    'num-queues': disk.queues,
    vectors: placement.vectors,
    ...iothreadProperties(placement),
    logical_block_size: disk.logicalBlockSize,
    physical_block_size: disk.physicalBlockSize,
    'write-cache': writeThrough ? 'off' : 'on',
    discard: disk.discard === 'unmap',
    // One writer only: a second front end on the node is refused by QEMU.
    'share-rw': false,
    werror: disk.writeErrors,
    // A spec never has `enospc` here (checkContradictions); QEMU would refuse it.
    rerror: disk.readErrors === 'enospc' ? 'auto' : disk.readErrors,
  });
}

/** One iothread serves the whole disk; several share its virtqueues, taking turns (QEMU 9.0: iothread-vq-mapping). */
function iothreadProperties({
  iothreads,
}: Placement): { iothread: string } | { 'iothread-vq-mapping': readonly { readonly iothread: string }[] } | object {
  const [first, ...more] = iothreads;
  if (first === undefined) return {};
  return more.length === 0
    ? { iothread: first }
    : { 'iothread-vq-mapping': iothreads.map((iothread) => ({ iothread })) };
}

async function read(qmp: Pick<QmpClient, 'run'>, id: string): Promise<SeenDevice> {
  const get = (property: string): Promise<unknown> => qmp.run('qom-get', { path: `${PERIPHERALS}/${id}`, property });
  const queues = Number(await get('num-queues'));
  return {
    slot: slotFrom(String(await get('parent_bus')), Number(await get('addr'))),
    writeThrough: String(await get('write-cache')) === 'off',
    disk: {
      discard: (await get('discard')) === true ? 'unmap' : 'ignore',
      serial: String(await get('serial')),
      queues,
      logicalBlockSize: Number(await get('logical_block_size')),
      physicalBlockSize: Number(await get('physical_block_size')),
      writeErrors: errorPolicy(await get('werror'), 'enospc'),
      readErrors: errorPolicy(await get('rerror'), 'report'),
    },
    placement: await placementFrom(get, queues),
  };
}

/**
 * `iothread` is the object's path, `iothread-vq-mapping` (QEMU 9.0) a list; both are empty for the main loop. It serves
 * book-keeping only: what cannot be read must not cost the volume.
 */
async function placementFrom(get: (property: string) => Promise<unknown>, queues: number): Promise<Placement> {
  const lookUp = (property: string): Promise<unknown> => get(property).catch(() => undefined);
  const [vectors, iothread, mapping] = await Promise.all(['vectors', 'iothread', 'iothread-vq-mapping'].map(lookUp));
  const mapped = z.array(z.object({ iothread: z.string() })).safeParse(mapping).data ?? [];
  const single = typeof iothread === 'string' ? (iothread.split('/').at(-1) ?? '') : '';
  return {
    vectors: typeof vectors === 'number' ? vectors : queues + 1,
    iothreads: mapped.length > 0 ? mapped.map((one) => one.iothread) : single === '' ? [] : [single],
  };
}

/** `parent_bus` is ".../bridge0/bridge0" (the bus has the bridge's id); `addr` is the devfn. */
function slotFrom(parentBus: string, devfn: number): Slot {
  const id = parentBus.split('/').at(-1) ?? '';
  const index = Number(/^bridge([0-9]+)$/.exec(id)?.[1]);
  if (!Number.isInteger(index) || !Number.isInteger(devfn))
    throw new Error(`it sits on ${parentBus}, address ${devfn}`);
  return { bridge: { id, address: FIRST_BRIDGE_ADDRESS + index }, device: devfn >> 3 };
}

function errorPolicy(value: unknown, fallback: IoErrorPolicy): IoErrorPolicy {
  return value === 'report' || value === 'ignore' || value === 'stop' || value === 'enospc' ? value : fallback;
}
