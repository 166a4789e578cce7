import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ShimError, invalidArgument, isShimError, messageOf } from '../base/errors.ts';
import { checkMount, type MountSpec } from '../volume/model/disk.ts';
import type { RequestedSpec } from '../volume/spec.ts';
import { parseConfig, type OciConfig } from '../guest/containers/oci.ts';
import { guestMountPoint, planContainer } from '../guest/containers/plan.ts';
import type { AttachedDisk, GuestProcess, StreamSpec } from '../guest/containers/types.ts';
import type { CreateTaskRequest__Output } from '../grpc/generated/containerd/task/v3/CreateTaskRequest.ts';
import type { VolumeSnapshot } from '../volume/volume.ts';
import { rootfsVolumeId, sharedVolumeId } from './ids.ts';
import type { Pod } from './pod.ts';
import type { ContainerRecord, ProcessRecord } from './pod-record.ts';
import {
  blockDeviceNode,
  isHostReadOnly,
  rootfsOf,
  volumeOf,
  withDirectVolumes,
  type HostFileSystem,
} from './sources.ts';

const CONFIG_BYTES_MAX = 4 * 1024 * 1024;

/**
 * config.json of a bundle, once for all that is done with it.
 * @throws ShimError INVALID_ARGUMENT / INVALID_CONFIG_JSON
 */
export async function readConfig(bundle: string): Promise<OciConfig> {
  return parseConfig(await readJson(bundle));
}

async function readJson(bundle: string): Promise<unknown> {
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

interface CreateParts {
  readonly pod: Pod;
  readonly container: ContainerRecord;
  readonly config: OciConfig;
  /** The root file system, as the snapshotter describes it. */
  readonly rootfs: CreateTaskRequest__Output['rootfs'];
  /** Where Kata's records of direct-assigned volumes are. */
  readonly directVolumes: string;
}

/**
 * Gives the pod's VM the disks that a container needs, then makes the container in the guest. The container's record
 * names each volume, on disk, before it is attached; who made the record gives the volumes back when this throws.
 */
export async function createInGuest(parts: CreateParts): Promise<GuestProcess> {
  const { pod, container } = parts;
  const { containers } = pod;
  const { config, groups, paths } = await withDirectVolumes(parts.config, parts.directVolumes);
  const plan = planContainer(config);
  const rootfs = rootfsOf(parts.rootfs);
  const rootfsId = rootfsVolumeId(container.id);

  // Two mounts of one source are one volume.
  const mounts = plan.volumes.map((volume) => ({ volume, volumeId: sharedVolumeId(volume.source, mountKey(volume)) }));
  const devices = await Promise.all(
    plan.devices.map(async ({ path, readOnly, major, minor }) => {
      const node = await blockDeviceNode(major, minor);
      const isRead = readOnly || (await isHostReadOnly(major, minor));
      return { path, node, readOnly: isRead, volumeId: sharedVolumeId(node, 'device') };
    }),
  );
  const fileSystems = new Map<string, HostFileSystem>([[rootfsId, rootfs]]);
  for (const { volumeId, volume } of mounts) {
    // One mount that writes is enough: each bind in the container has its own `ro`.
    const readOnly = volume.readOnly && fileSystems.get(volumeId)?.readOnly !== false;
    fileSystems.set(volumeId, { ...volume, readOnly });
  }
  // A wrong one is refused before any of the others is attached.
  for (const [volumeId, fileSystem] of fileSystems) checkMount(mountOf(volumeId, fileSystem), fileSystem.readOnly);
  container.volumes = [...fileSystems.keys(), ...new Set(devices.map(({ volumeId }) => volumeId))];
  container.directVolumes = mounts.flatMap(({ volume, volumeId }) => {
    const volumePath = paths.get(volume.destination);
    return volumePath === undefined ? [] : [{ volumePath, device: volume.source, volumeId }];
  });
  await pod.commit();

  const nodes = new Map<string, { readonly node: string; readonly readOnly: boolean }>();
  for (const { volumeId, node, readOnly } of devices) {
    // One device node that is written to is enough.
    nodes.set(volumeId, { node, readOnly: readOnly && nodes.get(volumeId)?.readOnly !== false });
  }
  // All of them end before the first failure is told: none may come up behind the undo.
  const attached = await Promise.allSettled([
    ...[...fileSystems].map(([volumeId, volume]) => attachMounted(pod, container.id, volumeId, volume)),
    ...[...nodes].map(async ([volumeId, { node, readOnly }]) => {
      const wanted = await volumeOf(node, readOnly, undefined);
      const { spec, guest } = await attachShared(pod, container.id, volumeId, wanted, node);
      return { volumeId, disk: { pciAddress: guest?.pciAddress ?? '', serial: spec.serial } };
    }),
  ]);
  const disks = new Map<string, AttachedDisk>();
  for (const result of attached) {
    if (result.status === 'rejected') throw result.reason;
    disks.set(result.value.volumeId, result.value.disk);
  }
  for (const { volume, volumeId } of mounts) {
    const group = groups.get(volume.destination);
    if (group !== undefined) await containers.giveToGroup(guestMountPoint(volumeId), group);
  }
  return await containers.create({
    id: container.id,
    plan,
    rootfs: guestMountPoint(rootfsId),
    volumes: new Map(mounts.map(({ volume, volumeId }) => [volume.destination, guestMountPoint(volumeId)])),
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
  fileSystem: HostFileSystem,
): Promise<{ volumeId: string; disk: AttachedDisk }> {
  const { source, readOnly } = fileSystem;
  const wanted = await volumeOf(source, readOnly, mountOf(volumeId, fileSystem));
  const { spec, guest } = await attachShared(pod, containerId, volumeId, wanted, source);
  return { volumeId, disk: { pciAddress: guest?.pciAddress ?? '', serial: spec.serial } };
}

function mountOf(volumeId: string, { fsType, options }: HostFileSystem): MountSpec {
  return { fsType, mountPoint: guestMountPoint(volumeId), options, format: 'never' };
}

/**
 * Attaches a volume or joins its users, who may be the other of readers and writers: a reader takes a writable one,
 * since the bind in its container is read-only.
 * @throws ShimError ALREADY_EXISTS / VOLUME_READ_ONLY for a writer of a volume that the guest has read-only
 */
async function attachShared(
  pod: Pod,
  containerId: string,
  volumeId: string,
  wanted: RequestedSpec,
  source: string,
): Promise<VolumeSnapshot> {
  try {
    return await pod.attach(containerId, volumeId, wanted);
  } catch (error) {
    const there = pod.volume(volumeId);
    if (!isShimError(error, 'ALREADY_EXISTS') || there === undefined) throw error;
    if (there.spec.readOnly === wanted.readOnly) throw error;
    if (wanted.readOnly) return await pod.attach(containerId, volumeId, { ...wanted, readOnly: false });
    throw new ShimError(
      'ALREADY_EXISTS',
      `volume ${volumeId} of ${source} is attached read-only, for a container of this pod that only reads it: ` +
        'another can write to it only when it is the first to use it',
      { reason: 'VOLUME_READ_ONLY', metadata: { volumeId, source }, cause: error },
    );
  }
}

/**
 * What makes two mounts of one source the same volume. The constant is where earlier versions, of whose volumes pods
 * may still have some, had whether it is only read.
 */
function mountKey({ fsType, options }: HostFileSystem): string {
  return JSON.stringify([fsType, false, [...options].sort()]);
}
