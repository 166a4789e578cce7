import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { invalidArgument, messageOf } from '../base/errors.ts';
import type {
  AttachedDisk,
  ContainerPlan,
  GuestContainers,
  GuestProcess,
  StreamSpec,
} from '../guest/containers/types.ts';
import type { CreateTaskRequest__Output } from '../rpc/generated/containerd/task/v3/CreateTaskRequest.ts';
import { rootfsVolumeId, sharedVolumeId } from './ids.ts';
import type { Pod } from './pod.ts';
import type { ContainerRecord, ProcessRecord } from './pod-record.ts';
import { blockDeviceNode, rootfsOf, volumeOf, withDirectVolumes, type HostFileSystem } from './sources.ts';

const CONFIG_BYTES_MAX = 4 * 1024 * 1024;

/** config.json of a bundle, parsed. @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG_JSON */
export async function readConfig(bundle: string): Promise<unknown> {
  const path = join(bundle, 'config.json');
  try {
    const text = await readFile(path, 'utf8');
    if (text.length > CONFIG_BYTES_MAX) throw new Error(`longer than ${CONFIG_BYTES_MAX} bytes`);
    return JSON.parse(text);
  } catch (error) {
    throw invalidArgument('bundle', bundle, `config.json cannot be read: ${messageOf(error)}`, 'INVALID_CONFIG_JSON');
  }
}

/** Which streams containerd wants of a process. */
export function streamsOf({ terminal, stdin, stdout, stderr }: ProcessRecord): StreamSpec {
  return { terminal, stdin: stdin !== '', stdout: stdout !== '', stderr: stderr !== '' && !terminal };
}

/** How config.json becomes disks of the guest (src/guest/containers/plan.ts). */
export interface Planner {
  planContainer(config: unknown): ContainerPlan;
  /** Where in the guest a volume is mounted. */
  guestMountPoint(volumeId: string): string;
}

interface CreateParts {
  readonly pod: Pod;
  readonly container: ContainerRecord;
  readonly config: unknown;
  readonly request: CreateTaskRequest__Output;
  readonly containers: GuestContainers;
  readonly planner: Planner;
  /** Where Kata's records of direct-assigned volumes are. */
  readonly directVolumes: string;
}

/**
 * Gives the pod's VM the disks that a container needs, then makes the container in the guest. The container's record names
 * each volume, on disk, before it is attached; who made the record gives the volumes back when this throws.
 */
export async function createInGuest(parts: CreateParts): Promise<GuestProcess> {
  const { pod, container, request, containers, planner } = parts;
  const mountPoint = (volumeId: string): string => planner.guestMountPoint(volumeId);
  const config = await withDirectVolumes(parts.config, parts.directVolumes);
  const plan = planner.planContainer(config);
  const rootfs = rootfsOf(request.rootfs);
  const rootfsId = rootfsVolumeId(container.id);

  // Two mounts of one source are one volume.
  const mounts = plan.volumes.map((volume) => ({ volume, volumeId: sharedVolumeId(volume.source, mountKey(volume)) }));
  const devices = await Promise.all(
    plan.devices.map(async ({ path, major, minor }) => {
      const node = await blockDeviceNode(major, minor);
      return { path, node, volumeId: sharedVolumeId(node, 'device') };
    }),
  );
  container.volumes = [...new Set([rootfsId, ...[...mounts, ...devices].map(({ volumeId }) => volumeId)])];
  await pod.commit();

  const fileSystems = new Map<string, HostFileSystem>([
    [rootfsId, rootfs],
    ...mounts.map(({ volumeId, volume }) => [volumeId, volume] as const),
  ]);
  const nodes = new Map(devices.map(({ volumeId, node }) => [volumeId, node]));
  // All of them end before the first failure is told: none may come up behind the undo.
  const attached = await Promise.allSettled([
    ...[...fileSystems].map(([volumeId, volume]) =>
      attachMounted(pod, container.id, volumeId, volume, mountPoint(volumeId)),
    ),
    ...[...nodes].map(async ([volumeId, node]) => {
      const { spec, guest } = await pod.attach(container.id, volumeId, await volumeOf(node, false, undefined));
      return { volumeId, disk: { pciAddress: guest?.pciAddress ?? '', serial: spec.serial } };
    }),
  ]);
  const disks = new Map<string, AttachedDisk>();
  for (const result of attached) {
    if (result.status === 'rejected') throw result.reason;
    disks.set(result.value.volumeId, result.value.disk);
  }
  return await containers.create({
    id: container.id,
    config,
    rootfs: mountPoint(rootfsId),
    volumes: new Map(mounts.map(({ volume, volumeId }) => [volume.destination, mountPoint(volumeId)])),
    devices: new Map(
      devices.flatMap(({ path, volumeId }) => {
        const disk = disks.get(volumeId);
        return disk === undefined ? [] : [[path, disk] as const];
      }),
    ),
    streams: streamsOf(container),
  });
}

async function attachMounted(
  pod: Pod,
  containerId: string,
  volumeId: string,
  { source, readOnly, fsType, options }: HostFileSystem,
  mountPoint: string,
): Promise<{ volumeId: string; disk: AttachedDisk }> {
  const mount = { fsType, mountPoint, options, format: 'never' as const };
  const { spec, guest } = await pod.attach(containerId, volumeId, await volumeOf(source, readOnly, mount));
  return { volumeId, disk: { pciAddress: guest?.pciAddress ?? '', serial: spec.serial } };
}

/** What makes two mounts of one source the same volume. */
function mountKey({ fsType, readOnly, options }: HostFileSystem): string {
  return JSON.stringify([fsType, readOnly, [...options].sort()]);
}
