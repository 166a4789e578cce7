import { z } from 'zod';
import { invalidArgument } from '../../base/errors.ts';
import type { ProcessPorts } from './runtime.ts';
import type { ProcessExit, StreamSpec } from './types.ts';

/** One process as the journal keeps it. */
export interface ProcessRecord {
  readonly containerId: string;
  readonly execId: string | undefined;
  /**
   * `creating` and `deleting` are undone and finished by the next daemon; `created` also of an exec before its start.
   */
  readonly state: 'creating' | 'created' | 'running' | 'stopped' | 'deleting';
  readonly paused: boolean;
  /** Its start was seen. Absent from journals of earlier versions. */
  readonly ran?: boolean | undefined;
  readonly pid: number;
  /** Ends the output streams (streams.ts), and tells this process from an earlier one of the same id. */
  readonly token: string;
  readonly streams: StreamSpec;
  readonly ports: ProcessPorts;
  /** An exec's `process` as JSON, until it is started. */
  readonly process: string | undefined;
  readonly exit: ProcessExit | undefined;
}

/** What the journal keeps for the containers of one sandbox. */
export interface ContainersRecord {
  readonly eventsPort: number;
  readonly processes: readonly ProcessRecord[];
}

function optional<T extends z.ZodType>(schema: T): z.ZodType<z.output<T> | undefined> {
  return z.preprocess((value) => value ?? undefined, schema.optional());
}

const processSchema = z.object({
  containerId: z.string(),
  execId: optional(z.string()),
  state: z.enum(['creating', 'created', 'running', 'stopped', 'deleting']),
  paused: z.boolean(),
  ran: optional(z.boolean()),
  pid: z.int(),
  token: z.string(),
  streams: z.object({ terminal: z.boolean(), stdin: z.boolean(), stdout: z.boolean(), stderr: z.boolean() }),
  ports: z.object({ stdin: z.int(), stdout: z.int(), stderr: z.int(), terminal: z.int() }),
  process: optional(z.string()),
  exit: optional(z.object({ code: z.int(), atMs: z.number(), oomKilled: z.boolean(), vmGone: z.boolean() })),
});

/** The journal's schema of ContainersRecord. */
export const containersSchema: z.ZodType<ContainersRecord> = z.object({
  eventsPort: z.int(),
  processes: z.array(processSchema),
});

const ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/**
 * Ids become names of directories and words of commands in the guest.
 * @throws ShimError INVALID_ARGUMENT / INVALID_ID
 */
export function checkContainerId(field: string, id: string): string {
  if (ID_PATTERN.test(id)) return id;
  throw invalidArgument(
    field,
    id,
    'must have 1 to 128 characters of A-Z, a-z, 0-9, ".", "_" and "-", and begin with a letter or digit',
    'INVALID_ID',
  );
}

/** How the guest calls a process (program.ts). */
export function keyOf(containerId: string, execId: string | undefined): string {
  return execId === undefined ? containerId : `${containerId}/x/${execId}`;
}
