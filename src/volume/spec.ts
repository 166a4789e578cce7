import { createHash } from 'node:crypto';
import type { z } from 'zod';
import { ShimError, invalidArgument } from '../base/errors.ts';
import type { Config } from '../config.ts';
import { refusalOfWriting } from './boot-images.ts';
import {
  SERIAL_BYTES_MAX,
  checkContradictions,
  checkMount,
  completeDisk,
  diskSchema,
  isDirect,
  mountSchema,
  type DiskSpec,
  type MountSpec,
  type RequestedDisk,
} from './model/disk.ts';
import { completeDraw, drawSchema, NO_DRAW, type Draw, type RequestedDraw } from './model/draw.ts';
import {
  completeEncryption,
  encryptionSchema,
  type EncryptionSpec,
  type RequestedEncryption,
} from './model/encryption.ts';
import { completeLimits, ioLimitsSchema, isLimited, type IoLimits } from './model/limits.ts';
import { maybe } from './model/maybe.ts';
import { lookAtSource, openSource, type OpenSource } from './looks.ts';
import { checkSize } from './source/local.ts';
import type { Inspection, IntendedUse } from './source/module.ts';
import { SOURCES, moduleOf, sourceSchema, type SourceSpec } from './source/registry.ts';

/**
 * A volume as the caller asked for it, with every default filled in. Two specs are the same when they are deeply equal.
 */
export interface VolumeSpec extends DiskSpec {
  readonly source: SourceSpec;
  readonly mount: MountSpec | undefined;
  readonly encryption: EncryptionSpec | undefined;
  /** Left out: none, as in records of the version before. */
  readonly limits?: IoLimits | undefined;
  /** Left out: it draws on no budget. */
  readonly draw?: Draw | undefined;
}

/** As the journal keeps it. */
export const volumeSpecSchema: z.ZodType<VolumeSpec> = diskSchema.extend({
  source: sourceSchema,
  mount: maybe(mountSchema),
  encryption: maybe(encryptionSchema),
  limits: ioLimitsSchema.optional(),
  draw: drawSchema.optional(),
});

/** As VolumeSpec, where empty strings, zeroes and undefined ask for the default. */
export interface RequestedSpec extends RequestedDisk {
  readonly source: SourceSpec | undefined;
  readonly mount: MountSpec | undefined;
  readonly encryption?: RequestedEncryption | undefined;
  readonly limits?: Partial<IoLimits> | undefined;
  readonly draw?: RequestedDraw | undefined;
}

/**
 * Fills in the defaults and refuses what contradicts itself.
 * @param serial the serial to give when the caller names none
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function completeSpec(requested: RequestedSpec, serial: string, vcpus: number): VolumeSpec {
  if (requested.source === undefined) {
    const names = SOURCES.map(({ apiName }) => apiName);
    throw invalidArgument(
      'spec.source',
      '',
      `one of ${names.slice(0, -1).join(', ')} and ${names.at(-1) ?? ''} is needed`,
    );
  }
  const module = moduleOf(requested.source);
  const { readOnly } = requested;
  const source = module.complete(requested.source);
  const disk = completeDisk(requested, { serial, vcpus, encrypted: requested.encryption !== undefined });
  const mount = requested.mount && checkMount(requested.mount, readOnly);
  const encryption = requested.encryption && completeEncryption(requested.encryption, { readOnly, source: module });
  const limits = completeLimits(requested.limits ?? {}, 'spec.limits');
  const draw = completeDraw(requested.draw ?? NO_DRAW, 'spec.limits', isLimited(limits));
  checkContradictions(disk);
  if (mount?.partition !== undefined && encryption?.kind === 'guest-luks2') {
    throw invalidArgument('spec.mount.partition', mount.partition, 'guest_luks2 encrypts the whole disk');
  }
  if (disk.aio !== 'auto' && !module.aioModes(disk, true).includes(disk.aio)) {
    throw invalidArgument('spec.aio', disk.aio, `${module.apiName} has no such mode: leave it to auto`);
  }
  return { ...disk, source, mount, encryption, ...(isLimited(limits) && { limits }), ...(draw && { draw }) };
}

/** The serial of a volume that was given none: its id where that fits, else the first bytes of the id's SHA-256. */
export function defaultSerial(volumeId: string): string {
  if (Buffer.byteLength(volumeId) <= SERIAL_BYTES_MAX) return volumeId;
  return createHash('sha256').update(volumeId).digest('hex').slice(0, SERIAL_BYTES_MAX);
}

/** What a source is looked at for. */
export function intendedUse({ readOnly, logicalBlockSize, encryption, mount, cache }: VolumeSpec): IntendedUse {
  return {
    readOnly,
    logicalBlockSize,
    direct: isDirect(cache),
    hostLuks: encryption?.kind === 'host-luks' ? encryption : undefined,
    createsIfEmpty: mount?.format === 'if_empty' || (encryption?.kind === 'guest-luks2' && encryption.mode !== 'open'),
  };
}

/**
 * Looks at a volume's source and refuses what cannot be attached safely. Changes nothing.
 * @param source in place of the spec's own, when it was resolved before
 * @throws ShimError as the source's module does; INVALID_ARGUMENT / INVALID_SIZE; FAILED_PRECONDITION /
 *   SOURCE_NOT_USABLE
 */
export async function inspectSource(
  spec: VolumeSpec,
  config: Config,
  source = spec.source,
): Promise<Inspection<SourceSpec>> {
  const found = checkFound(spec, await lookAtSource(source, intendedUse(spec), config));
  if (spec.readOnly) return found;
  const bootImage = await refusalOfWriting(moduleOf(found.resolved).describe(found.resolved), found.identity, config);
  if (bootImage !== undefined) throw bootImage;
  return found;
}

/**
 * Looks at the source of a volume that goes to QEMU as an open file, once more and as a whole: what is seen now is what
 * QEMU gets.
 * @param resolved as it was found when the volume was admitted
 * @param looksForData whether it has to be found out that it is empty
 * @throws as inspectSource
 */
export async function openForQemu(
  spec: VolumeSpec,
  config: Config,
  resolved: SourceSpec,
  looksForData: boolean,
): Promise<OpenSource> {
  const use = intendedUse(spec);
  const open = await openSource(resolved, { ...use, createsIfEmpty: use.createsIfEmpty && looksForData }, config);
  try {
    checkFound(spec, open.found);
    return open;
  } catch (error) {
    open[Symbol.dispose]();
    throw error;
  }
}

function checkFound(spec: VolumeSpec, found: Inspection<SourceSpec>): Inspection<SourceSpec> {
  const { source, encryption, aio } = spec;
  if (!found.endsInSector && aio === 'io_uring') throw notForIoUring(moduleOf(source).describe(found.resolved));
  if (encryption?.kind === 'guest-luks2' && encryption.mode === 'create') {
    // cryptsetup says so too, in the guest: "Device size is not aligned to requested sector size".
    checkSize('spec.source', moduleOf(source).describe(found.resolved), found.sizeBytes, encryption.sectorSize);
  }
  return found;
}

/** QEMU would hang on it for ever, with the whole VM: block/io_uring.c, luring_resubmit_short_read. */
function notForIoUring(path: string): ShimError {
  const problem = 'does not end with a whole sector of 512 bytes, which io_uring needs: leave aio to auto';
  return new ShimError('FAILED_PRECONDITION', `${path} ${problem}`, {
    reason: 'SOURCE_NOT_USABLE',
    metadata: { field: 'spec.aio', value: 'io_uring', path },
  });
}
