import { mkdir, readFile, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Coalesced } from '../base/coalesce.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

/**
 * What is kept of a pod besides its sandbox, so that a daemon that comes back can answer containerd as the one before it would
 * have: one JSON file a pod, written like a sandbox's journal. What the guest knows of processes is not in it; exits are, once
 * they have been seen, since the guest and its VM may be gone when containerd asks.
 */

const exitSchema = z.strictObject({ code: z.int(), atMs: z.number() });
/** In base64: what a daemon that left had read of a stream, and could not deliver; and whether the stream ends with it. */
const leftSchema = z.object({ bytes: z.string(), ended: z.boolean() });
const processSchema = z.object({
  /** FIFO paths as containerd gave them; empty for none. */
  stdin: z.string(),
  stdout: z.string(),
  stderr: z.string(),
  terminal: z.boolean(),
  /** containerd has closed stdin: it is not opened again. */
  stdinClosed: z.boolean().default(false),
  started: z.boolean().default(false),
  exit: exitSchema.optional(),
  /** Of an end that is on record, and whose event may not be on disk yet: whoever finds this tells it. */
  untold: z.object({ oomKilled: z.boolean() }).optional(),
  left: z.object({ stdin: leftSchema, stdout: leftSchema, stderr: leftSchema }).partial().optional(),
});
const execSchema = processSchema.extend({
  id: z.string(),
  /** False while Exec is under way: what the guest has of it is removed if it never ends. Absent from records of earlier versions. */
  ready: z.boolean().default(true),
  /** Of all that was asked for: a repeated Exec asks for the same. Absent from records of earlier versions. */
  digest: z.string().optional(),
});
const containerSchema = processSchema.extend({
  id: z.string(),
  bundle: z.string(),
  /** Volumes that this container uses; a volume goes when its last user does. */
  volumes: z.array(z.string()),
  /** False while Create is under way: what it has attached is given back if it never ends. */
  ready: z.boolean(),
  execs: z.array(execSchema),
});
const podSchema = z.strictObject({
  version: z.literal(1),
  namespace: z.string(),
  id: z.string(),
  sandboxId: z.string(),
  /** Made for one container that came without a sandbox (`ctr run`); it ends with that container. */
  implicit: z.boolean(),
  annotations: z.record(z.string(), z.string()),
  labels: z.record(z.string(), z.string()),
  createdAtMs: z.number(),
  /** Before the sandbox is asked for: the one of this id is the pod's own, and nobody else's. */
  begun: z.boolean().default(false),
  startedAtMs: z.number().optional(),
  /** QEMU's process, while it ran. */
  pid: z.int().optional(),
  exit: exitSchema.optional(),
  /** Volumes that Controller.Update has attached. */
  updateVolumes: z.array(z.string()),
  containers: z.array(containerSchema),
});

export type ExitRecord = z.infer<typeof exitSchema>;
export type ProcessRecord = z.infer<typeof processSchema>;
export type ExecRecord = z.infer<typeof execSchema>;
export type ContainerRecord = z.infer<typeof containerSchema>;
export type PodRecord = z.infer<typeof podSchema>;

/** Takes a container or an exec out of its record's list. */
export function forget<T>(list: T[], member: T): void {
  const index = list.indexOf(member);
  if (index >= 0) list.splice(index, 1);
}

const SUFFIX = '.json';

/** A pod's record on disk. */
export class PodFile {
  readonly #path: string;
  readonly #render: () => PodRecord;
  readonly #writes = new Coalesced(() => this.#write());
  #over = false;

  constructor(directory: string, render: () => PodRecord) {
    this.#path = join(directory, render().sandboxId + SUFFIX);
    this.#render = render;
  }

  /**
   * Resolves once a record that was rendered after this call is on disk.
   * @throws ShimError UNAVAILABLE / JOURNAL_WRITE_FAILED: then nothing may be begun
   */
  commit(): Promise<void> {
    return this.#writes.run();
  }

  /** Removes the file for good; later commits do nothing. */
  async remove(): Promise<void> {
    await this.leave();
    await rm(this.#path, { force: true });
  }

  /** Leaves the file to the next daemon, once nothing is being written any more; later commits do nothing. */
  async leave(): Promise<void> {
    this.#over = true;
    await this.#writes.run();
  }

  async #write(): Promise<void> {
    if (this.#over) return;
    try {
      await writeAtomically(this.#path, JSON.stringify(this.#render()));
    } catch (error) {
      throw new ShimError('UNAVAILABLE', `cannot write the pod's record ${this.#path}: ${messageOf(error)}`, {
        reason: 'JOURNAL_WRITE_FAILED',
        metadata: { path: this.#path },
        cause: error,
      });
    }
  }
}

/** Every pod that an earlier daemon has left a record of. A file that cannot be understood is set aside and named in the log. */
export async function readPods(directory: string, log: Logger): Promise<readonly PodRecord[]> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const names = (await readdir(directory)).filter((name) => name.endsWith(SUFFIX));
  const records = await Promise.all(
    names.map(async (name) => {
      const path = join(directory, name);
      try {
        return podSchema.parse(JSON.parse(await readFile(path, 'utf8')));
      } catch (error) {
        const aside = `${path}.corrupt-${Date.now()}`;
        await rename(path, aside);
        log.error({ path, aside, problem: messageOf(error).slice(0, 500) }, "pod's record set aside as unreadable");
        return undefined;
      }
    }),
  );
  return records.filter((record) => record !== undefined);
}
