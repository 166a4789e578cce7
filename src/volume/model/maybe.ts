import { z } from 'zod';

/**
 * A member that may be missing. JSON has no undefined: the journal writes null, and it is read back as undefined, so
 * that the member is there either way. A spec that came back without its `mount` would no longer be deeply equal to the
 * same request.
 */
export function maybe<T extends z.ZodType>(schema: T): z.ZodType<z.output<T> | undefined> {
  return z.preprocess((value) => value ?? undefined, schema.optional());
}
