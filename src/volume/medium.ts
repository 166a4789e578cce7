import { z } from 'zod';
import { aioModeSchema } from './model/disk.ts';
import { hostLuksSchema } from './model/encryption.ts';
import { maybe } from './model/maybe.ts';
import { sourceSchema } from './source/registry.ts';

/**
 * A medium that a volume has beside the one that its device is on: one that it is being copied to, or one that it has
 * left and QEMU may still have open. The claim on it is held from before it is in here until QEMU was seen to have
 * none of its objects.
 */
export const mediumSchema = z
  .object({
    /** Unique in the VM (VolumeStore); 0: that of the attach. QEMU's names hold it. */
    number: z.int(),
    source: sourceSchema,
    /** The source as QEMU opens it, in one word. */
    resolvedPath: z.string(),
    /** Claims go by it; empty: its file is to be made, and nobody has a claim on it yet. */
    backingIdentity: z.string(),
    /** The aio mode in which QEMU has opened it. */
    aio: maybe(aioModeSchema),
    /** In place of the spec's. Left out: encrypted as that says. */
    encryption: hostLuksSchema.optional(),
    /** Its file is made by the volume's operation, and goes with it if that fails. Wall-clock ms of the intent. */
    madeAtMs: z.number().optional(),
  })
  .readonly();

export type Medium = z.infer<typeof mediumSchema>;
