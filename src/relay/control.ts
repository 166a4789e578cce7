import { z } from 'zod';

/**
 * What the daemon and its relay say to each other: one JSON object a line, each request answered by one line, in order.
 * A relay outlives daemons, and meets later ones: what is here stays as it is, more may be said, and what is new is
 * asked only of a relay of a version that knows it.
 */

const fifoSchema = z.object({ path: z.string(), mode: z.enum(['reader', 'both', 'writer']) });

export const requestSchema = z.discriminatedUnion('do', [
  z.object({ do: z.literal('hello') }),
  z.object({ do: z.literal('hold'), key: z.string(), fifos: z.array(fifoSchema) }),
  z.object({ do: z.literal('release'), key: z.string() }),
  z.object({ do: z.literal('end') }),
]);
export type RelayRequest = z.infer<typeof requestSchema>;

/** A later relay may say more. */
export const responseSchema = z.object({
  /** Whom this relay serves, and as which process. */
  pid: z.int(),
  socket: z.string(),
  backend: z.string(),
  version: z.int(),
});
export type RelayResponse = z.infer<typeof responseSchema>;

/** Raised when this conversation, or what the relay passes on, changes. */
export const RELAY_VERSION = 2;

/**
 * Where the relay answers ttrpc, for containerds without a sandbox Controller: beside its gRPC socket, as containerd's
 * own.
 */
export function ttrpcSocketOf(socket: string): string {
  return `${socket}.ttrpc`;
}
