import { z } from 'zod';
import { mediumSchema } from './medium.ts';
import { factsSchema } from './model/facts.ts';
import { placementSchema } from './model/placement.ts';
import { slotSchema } from './model/slots.ts';
import { stateSchema } from './model/state.ts';
import { volumeSpecSchema } from './spec.ts';

/** A volume as the journal keeps it. */
export const volumeRecordSchema = factsSchema
  .extend({
    volumeId: z.string(),
    generation: z.int(),
    spec: volumeSpecSchema,
    slot: slotSchema,
    placement: placementSchema,
    /** Claims go by it. */
    backingIdentity: z.string(),
    /** The source as QEMU opens it, in one word. */
    resolvedPath: z.string(),
    sizeBytes: z.int(),
    state: stateSchema,
    /** Something of it may be mounted or mapped in the guest. */
    mounted: z.boolean(),
    // Left out by a volume that never moved, so that the version before can read the record.
    /** Which medium its device is on; left out: that of its attach. */
    medium: z.int().optional(),
    otherMedia: z.array(mediumSchema).readonly().optional(),
  })
  .readonly();

export type VolumeRecord = z.infer<typeof volumeRecordSchema>;
