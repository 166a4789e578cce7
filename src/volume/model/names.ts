/**
 * What one generation of a volume is called inside QEMU. A name is never used twice, and every one holds the
 * generation.
 */
export interface QemuNames {
  readonly generation: number;
  /** qdev id of the front end. Holds the volume id, so that a lost journal can be rebuilt from QEMU. */
  readonly device: string;
  /** The node that the front end uses. Node names have at most 31 characters. */
  readonly root: string;
  /** The node below it, where the bytes are. */
  readonly protocol: string;
  /** The set of descriptors in which QEMU has the file, where it gets it open: its number, and what it is called. */
  readonly fdset: { readonly number: number; readonly name: string };
  /** The job that makes an encrypted image, or changes its key slots. */
  readonly job: string;
}

/** Below it are the numbers of sets that are no volume's. */
const FDSET_FIRST = 1000;
const DEVICE_PATTERN = /^vol-([0-9]+)-(.+)$/;

/** Names of generation `generation` of volume `volumeId`. */
export function namesFor(volumeId: string, generation: number): QemuNames {
  return {
    generation,
    device: `vol-${generation}-${volumeId}`,
    root: helperName(generation, 'fmt'),
    protocol: helperName(generation, 'file'),
    fdset: { number: FDSET_FIRST + generation, name: helperName(generation, 'fdset') },
    job: helperName(generation, 'job'),
  };
}

/** The name of anything else that a volume of this generation needs in QEMU. */
export function helperName(generation: number, part: string): string {
  return `vol-${generation}-${part}`;
}

/** The inverse of namesFor on the device id; undefined for devices that are not volumes. */
export function parseDeviceId(
  deviceId: string,
): { readonly volumeId: string; readonly generation: number } | undefined {
  const match = DEVICE_PATTERN.exec(deviceId);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { volumeId: match[2], generation: Number(match[1]) };
}

/** The generation that a node, an object or a job belongs to; undefined for those that are no volume's. */
export function generationOf(name: string): number | undefined {
  const generation = DEVICE_PATTERN.exec(name)?.[1];
  return generation === undefined ? undefined : Number(generation);
}
