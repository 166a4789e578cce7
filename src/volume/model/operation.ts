import { z } from 'zod';

/**
 * What can be done to a volume while it stays attached. Each volume has one slot for it: a second operation is refused
 * with the name of the first; only the same resize again joins it. It is in the journal from before it changes anything
 * until it has ended, so that a daemon that comes back takes it up again.
 */
export const operationSchema = z
  .discriminatedUnion('kind', [
    /**
     * Grows image, disk, encryption and file system; begun again from the bottom, since each of its steps may be
     * repeated.
     */
    z.object({ kind: z.literal('resize'), sizeBytes: z.int(), timeoutMs: z.int() }),
    /** Changes key slots; the keys are not kept, so a daemon that comes back looks at what became of it. */
    z.object({ kind: z.literal('change-keys'), change: z.enum(['add', 'change', 'remove', 'remove-slot']) }),
  ])
  .readonly();

export type Operation = z.infer<typeof operationSchema>;
