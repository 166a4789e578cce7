import { z } from 'zod';

/**
 * The walls around one QEMU, each of which can be there or be missing:
 *
 * - `namespaces`: mount, pid, ipc, uts and net namespaces of its own, and a root that has only what QEMU needs
 * - `uid`: a user and a group that no other sandbox has, no capability
 * - `cgroup`: limits of memory, processes, CPU and I/O
 * - `landlock`: no file can be written outside the sandbox's own directory, whatever the mounts are
 */
export const CELL_PARTS = ['namespaces', 'uid', 'cgroup', 'landlock'] as const;
export type CellPart = (typeof CELL_PARTS)[number];

const missingSchema = z.object({ part: z.enum(CELL_PARTS), why: z.string() }).readonly();
/** A wall that is not there, and in words why. */
export type MissingPart = z.infer<typeof missingSchema>;

/** How a QEMU was confined when it was started; the journal keeps it. */
export const cellFactsSchema = z
  .object({
    /** `off`: not asked for. `degraded`: at least one wall is missing. */
    level: z.enum(['off', 'degraded', 'full']),
    /** User and group of QEMU; 0: the daemon's own. */
    uid: z.int(),
    missing: z.array(missingSchema).readonly(),
    /** Directory of its control group; empty when it has none. */
    cgroup: z.string(),
  })
  .readonly();
export type CellFacts = z.infer<typeof cellFactsSchema>;

/** Of a QEMU that runs as the daemon does. */
export const UNCONFINED: CellFacts = { level: 'off', uid: 0, missing: [], cgroup: '' };
