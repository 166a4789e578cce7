/**
 * What one generation of a volume is called inside QEMU. A name is never used twice, and every one holds the
 * generation.
 */
export interface QemuNames {
  readonly generation: number;
  /** Which of the volume's media it is; 0: that of its attach. */
  readonly medium: number;
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
  /** The job that copies another medium of the volume to this one, and the node that it puts over that one. */
  readonly mirror: { readonly job: string; readonly filter: string };
}

/** Below it are the numbers of sets that are no volume's. */
const FDSET_FIRST = 1000;
const DEVICE_PATTERN = /^vol-([0-9]+)-(.+)$/;
const MEDIUM_PATTERN = /^vol-[0-9]+-m([0-9]+)-(?:fmt|file|fdset|job|mirror|top|key|master|tls-.*)$/;

/** What a name needs to hold. */
export type NameOf = Pick<QemuNames, 'generation' | 'medium'>;

/**
 * Names of generation `generation` of volume `volumeId`.
 * @param medium a number from the same counter as generations (VolumeStore), so that no set of descriptors is two
 *   volumes'; left out: the medium of its attach
 */
export function namesFor(volumeId: string, generation: number, medium = 0): QemuNames {
  const of = { generation, medium };
  return {
    ...of,
    device: `vol-${generation}-${volumeId}`,
    root: helperName(of, 'fmt'),
    protocol: helperName(of, 'file'),
    fdset: { number: FDSET_FIRST + numberOf(of), name: helperName(of, 'fdset') },
    job: helperName(of, 'job'),
    mirror: { job: helperName(of, 'mirror'), filter: helperName(of, 'top') },
  };
}

/** The name of anything else that a volume of this generation needs in QEMU for a medium. */
export function helperName({ generation, medium }: NameOf, part: string): string {
  return medium === 0 ? `vol-${generation}-${part}` : `vol-${generation}-m${medium}-${part}`;
}

/** What is unique in the VM: a medium's own number, or the generation. */
export function numberOf({ generation, medium }: NameOf): number {
  return medium === 0 ? generation : medium;
}

/** The medium that a node, an object or a job belongs to; 0 for those of an attach, and for all others. */
export function mediumOf(name: string): number {
  return Number(MEDIUM_PATTERN.exec(name)?.[1] ?? 0);
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
