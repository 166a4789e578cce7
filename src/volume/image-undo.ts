import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { listed } from '../qemu/inventory.ts';
import type { QmpClient } from '../qmp/client.ts';
import { look, type LookLimits } from './looks.ts';
import type { ImageCreation } from './model/encryption.ts';
import type { QemuNames } from './model/names.ts';
import type { VolumeSpec } from './spec.ts';

/**
 * The undo of making a `host_luks` image. What was seen to be empty before is made empty again, by whoever comes to it:
 * the attach that failed, the end of the VM, or a later daemon that finds in the journal that an image was begun.
 * INVARIANT: `volume.creating` is on disk before QEMU writes a byte of the image, and off it before a guest gets the
 * disk.
 *
 * Whose bytes they are has to be seen. A file is known by its inode and its birth, and by having nothing behind the
 * header. A block device's number goes to another device, and no lock tells who has it open: of a device only that is
 * made empty which QEMU still had open when it was read, with the image made, and which has not changed since.
 */

/** What the undo needs to know of a volume. */
export interface CreatingVolume {
  readonly id: string;
  readonly identity: {
    readonly spec: Pick<VolumeSpec, 'encryption'>;
    readonly resolvedPath: string;
    readonly backingIdentity: string;
  };
  readonly sizeBytes: number;
  readonly creating: ImageCreation | undefined;
}

/**
 * What QEMU has left at the beginning of a block device, read while QEMU has it open: nobody can have put another
 * device in its place. To be kept in memory alone: for a later daemon it would say nothing.
 * @returns a digest; undefined when QEMU still works on the image, or has let go of the device; and for a file
 * @throws what the connection throws
 */
export async function leftByQemu(
  qmp: Pick<QmpClient, 'run'>,
  { identity, creating, names }: CreatingVolume & { readonly names: Pick<QemuNames, 'job' | 'protocol'> },
  limits: LookLimits,
): Promise<string | undefined> {
  const { encryption } = identity.spec;
  if (creating === undefined || encryption?.kind !== 'host-luks') return undefined;
  const job = (await qmp.run('query-jobs')).find(({ id }) => id === names.job);
  if (job !== undefined && job.status !== 'concluded') return undefined;
  if (!(await listed(qmp, 'node')).has(names.protocol)) return undefined;
  try {
    const { resolvedPath, backingIdentity } = identity;
    return await look('digestOfDevice', resolvedPath, limits, resolvedPath, backingIdentity, encryption.cipher);
  } catch {
    // What cannot be read is not known, and is left as it is.
    return undefined;
  }
}

/**
 * Makes the source empty again if an image was begun in it and not finished. To be called while the claim on the source
 * is still held, and once QEMU does not have it any more. What cannot be told for certain to be that image, and nothing
 * but it, is left as it is, and named in the log. Never throws. Afterwards nothing of it is begun any more.
 * @param options.left what leftByQemu has seen; without it no block device is written to
 */
export async function undoCreation(
  volume: CreatingVolume,
  options: {
    readonly limits: LookLimits;
    readonly scanBytesMax: number;
    readonly left?: string | undefined;
    readonly log: Logger;
  },
): Promise<void> {
  const { creating, sizeBytes, identity } = volume;
  if (creating === undefined) return;
  const { resolvedPath: path, backingIdentity, spec } = identity;
  const log = options.log.child({ volumeId: volume.id, path });
  try {
    const { limits, scanBytesMax, left } = options;
    const { encryption } = spec;
    const problem =
      encryption?.kind === 'host-luks'
        ? await look('emptyAgain', path, limits, { path, backingIdentity, encryption, sizeBytes }, creating, {
            scanBytesMax,
            left,
          })
        : 'it is no image';
    if (problem === undefined) log.info({}, 'image that was not finished is empty again');
    else log.warn({ problem }, 'image that was not finished left as it is');
  } catch (error) {
    log.warn({ problem: messageOf(error) }, 'image that was not finished left as it is');
  }
}
