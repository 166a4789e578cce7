import { mkdir, readFile, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { writeAtomically } from '../base/atomic-file.ts';
import { Coalesced } from '../base/coalesce.ts';
import { ShimError, errnoOf, isShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import {
  laterMajor,
  upgraded,
  versionMembers,
  withChanged,
  withEach,
  withMissing,
  type Format,
  type JsonObject,
} from '../base/versions.ts';

/**
 * What is kept of a pod besides its sandbox, so that a daemon that comes back can answer containerd as the one before
 * it would have: one JSON file a pod, written like a sandbox's journal. What the guest knows of processes is not in it;
 * exits are, once they have been seen, since the guest and its VM may be gone when containerd asks.
 *
 * Versions as of a journal (base/versions.ts), and as there what today's daemon writes is 1.0. Members that this
 * version does not know stay in the objects that are read, which are the ones that are changed and written.
 */
export const POD_FORMAT: Format & { readonly major: 1 } = { major: 1, upgrades: [{ to: 0, upgrade: completed }] };

/** An object that keeps its unknown members. Its type does not speak of them. */
function keeping<T extends z.ZodRawShape>(shape: T): z.ZodObject<T> {
  return z.object(shape).loose();
}

const exitSchema = keeping({ code: z.int(), atMs: z.number() });
/**
 * In base64: what a daemon that left had read of a stream, and could not deliver; and whether the stream ends with it.
 */
const leftSchema = keeping({ bytes: z.string(), ended: z.boolean() });
const processSchema = keeping({
  /** FIFO paths as containerd gave them; empty for none. */
  stdin: z.string(),
  stdout: z.string(),
  stderr: z.string(),
  terminal: z.boolean(),
  /** containerd has closed stdin: it is not opened again. */
  stdinClosed: z.boolean(),
  started: z.boolean(),
  exit: exitSchema.optional(),
  /** Of an end that is on record, and whose event may not be on disk yet: whoever finds this tells it. */
  untold: keeping({ oomKilled: z.boolean() }).optional(),
  left: keeping({ stdin: leftSchema, stdout: leftSchema, stderr: leftSchema }).partial().optional(),
});
const execSchema = processSchema.extend({
  id: z.string(),
  /** False while Exec is under way: what the guest has of it is removed if it never ends. */
  ready: z.boolean(),
  /** Of all that was asked for: a repeated Exec asks for the same. Absent from records of earlier versions. */
  digest: z.string().optional(),
});
/** A direct-assigned volume: the path that Kata's record has in its name, and the device that it names. */
const directVolumeSchema = keeping({ volumePath: z.string(), device: z.string(), volumeId: z.string() });
const containerSchema = processSchema.extend({
  id: z.string(),
  bundle: z.string(),
  /** Volumes that this container uses; a volume goes when its last user does. */
  volumes: z.array(z.string()),
  /** Those among them that are direct-assigned. Absent from records of earlier versions. */
  directVolumes: z.array(directVolumeSchema).optional(),
  /** False while Create is under way: what it has attached is given back if it never ends. */
  ready: z.boolean(),
  execs: z.array(execSchema),
});
const podSchema = keeping({
  version: z.literal(POD_FORMAT.major),
  namespace: z.string(),
  id: z.string(),
  sandboxId: z.string(),
  /** Made for one container that came without a sandbox (`ctr run`); it ends with that container. */
  implicit: z.boolean(),
  annotations: z.record(z.string(), z.string()),
  labels: z.record(z.string(), z.string()),
  /** What its limits come to (pod-config.ts). */
  size: keeping({ vcpus: z.int().optional(), memoryMib: z.int().optional() }).optional(),
  /** What CRI asks for and the pod does not get (pod-config.ts). */
  notApplied: z.array(z.string()).optional(),
  createdAtMs: z.number(),
  /** Before the sandbox is asked for: the one of this id is the pod's own, and nobody else's. */
  begun: z.boolean(),
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
export type DirectVolumeRecord = z.infer<typeof directVolumeSchema>;
export type ContainerRecord = z.infer<typeof containerSchema>;
export type PodRecord = z.infer<typeof podSchema>;

/** Gives records from before there were minors what was added meanwhile. */
function completed(pod: JsonObject): JsonObject {
  const process = { stdinClosed: false, started: false };
  const whole: JsonObject = { begun: false, ...pod };
  return {
    ...whole,
    containers: withEach(whole['containers'], (container) =>
      withChanged(withMissing(container, process), 'execs', (execs) =>
        withEach(execs, (exec) => withMissing(exec, { ...process, ready: true })),
      ),
    ),
  };
}

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
  /** What lies under its path is a record of this version, or nothing. */
  #isOurs = false;

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
      await this.#refuseLater();
      await writeAtomically(this.#path, JSON.stringify({ ...this.#render(), ...versionMembers(POD_FORMAT) }));
    } catch (error) {
      if (isShimError(error)) throw error;
      throw new ShimError('UNAVAILABLE', `cannot write the pod's record ${this.#path}: ${messageOf(error)}`, {
        reason: 'JOURNAL_WRITE_FAILED',
        metadata: { path: this.#path },
        cause: error,
      });
    }
  }

  /**
   * Once, before the first write: a record that only a later daemon can read is not written over.
   * @throws ShimError FAILED_PRECONDITION / SANDBOX_NOT_ADOPTED
   */
  async #refuseLater(): Promise<void> {
    if (this.#isOurs) return;
    try {
      refuseLater(this.#path, JSON.parse(await readFile(this.#path, 'utf8')));
    } catch (error) {
      const isNoRecord = errnoOf(error) === 'ENOENT' || error instanceof SyntaxError;
      if (!isNoRecord) throw error;
    }
    this.#isOurs = true;
  }
}

function refuseLater(path: string, json: unknown): void {
  const later = laterMajor(json, POD_FORMAT);
  if (later === undefined) return;
  throw new ShimError(
    'FAILED_PRECONDITION',
    `the pod's record ${path} has version ${later}, of a later qshim; this one reads version ${POD_FORMAT.major}, and leaves it as it is`,
    { reason: 'SANDBOX_NOT_ADOPTED', metadata: { path, version: String(later) } },
  );
}

/**
 * Every pod that an earlier daemon has left a record of. A file that cannot be understood is set aside and named in the
 * log; one that only a later daemon can read stays as it is.
 */
export async function readPods(directory: string, log: Logger): Promise<readonly PodRecord[]> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const names = (await readdir(directory)).filter((name) => name.endsWith(SUFFIX));
  const records = await Promise.all(
    names.map(async (name) => {
      const path = join(directory, name);
      try {
        const json: unknown = JSON.parse(await readFile(path, 'utf8'));
        refuseLater(path, json);
        const { file, later } = upgraded(json, POD_FORMAT);
        const record = podSchema.parse(file);
        if (later) log.warn({ path }, "members of the pod's record that are not known here are kept");
        return record;
      } catch (error) {
        if (isShimError(error)) {
          log.error({ path, problem: error.message }, "pod's record left as it is");
          return undefined;
        }
        const aside = `${path}.corrupt-${Date.now()}`;
        await rename(path, aside);
        log.error({ path, aside, problem: messageOf(error).slice(0, 500) }, "pod's record set aside as unreadable");
        return undefined;
      }
    }),
  );
  return records.filter((record) => record !== undefined);
}
