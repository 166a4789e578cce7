import { ShimError } from '../../base/errors.ts';
import { readHostFiles } from './host-files.ts';
import type { GuestRuntime } from './runtime.ts';
import { packTar } from './tar.ts';
import { translateConfig, type DeviceNumbers } from './translate.ts';
import type { ContainerSpec } from './types.ts';

/**
 * What the guest needs to make a container: config.json in the guest's terms, and the host's small files, as one tar
 * archive.
 * @throws ShimError as readHostFiles, GuestRuntime.findDevices, translateConfig
 */
export async function makeBundle(
  runtime: GuestRuntime,
  spec: ContainerSpec,
  hook: readonly string[] | undefined,
): Promise<Buffer> {
  const { plan } = spec;
  const files = await readHostFiles(plan.files);
  const copied = files.map(({ destination, name }) => [destination, `/run/qshim/c/${spec.id}/${name}`] as const);
  const guestConfig = translateConfig(plan, {
    containerId: spec.id,
    rootfs: spec.rootfs,
    terminal: spec.streams.terminal,
    binds: new Map([...spec.volumes, ...copied]),
    devices: await devicesOf(runtime, spec, plan.devices),
    hook,
  });
  const json = Buffer.from(JSON.stringify(guestConfig));
  return packTar([{ name: 'config.json', mode: 0o600, content: json }, ...files]);
}

async function devicesOf(
  runtime: GuestRuntime,
  spec: ContainerSpec,
  planned: readonly { readonly path: string }[],
): Promise<ReadonlyMap<string, DeviceNumbers>> {
  const disks = planned.map(({ path }) => {
    const disk = spec.devices.get(path);
    if (disk !== undefined) return disk;
    throw new ShimError('INVALID_ARGUMENT', `the device ${path} has no volume in the guest`, {
      reason: 'VOLUME_MISSING',
      metadata: { what: path },
    });
  });
  if (disks.length === 0) return new Map();
  const numbers = await runtime.findDevices(disks);
  return new Map(planned.flatMap(({ path }, index) => (numbers[index] ? [[path, numbers[index]] as const] : [])));
}
