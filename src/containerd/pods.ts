import { join } from 'node:path';
import { sleep, waitFor } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { specOfPod, type PodRequest, type PodRules } from './annotations.ts';
import type { Caller } from './caller.ts';
import { checkNamed, sandboxIdOf, type Named } from './ids.ts';
import { Pod, noPod, notOurs, type PodContainer, type PodHost, type PodParts } from './pod.ts';
import { readPods } from './pod-record.ts';

/** Below the daemon's state directory. */
export const CONTAINERD_DIRECTORY = '.containerd';

interface PodsOptions {
  readonly manager: PodHost;
  readonly stateDir: string;
  readonly rules: PodRules;
  readonly log: Logger;
}

/** All pods that containerd has asked for. */
export class Pods {
  readonly #parts: PodParts;
  /** By namespace and id. */
  readonly #pods = new Map<string, Pod>();

  private constructor(options: PodsOptions) {
    const { manager, stateDir, rules, log } = options;
    this.#parts = { manager, rules, log, directory: join(stateDir, CONTAINERD_DIRECTORY, 'pods') };
  }

  /** Reads what an earlier daemon has left; the manager has adopted the sandboxes by then. */
  static async open(options: PodsOptions): Promise<Pods> {
    const pods = new Pods(options);
    for (const record of await readPods(pods.#parts.directory, options.log)) {
      const pod = new Pod(record, pods.#parts);
      pods.#pods.set(keyOf(record), pod);
      if (record.startedAtMs !== undefined) pod.watch();
    }
    return pods;
  }

  /**
   * Takes note of a pod; `start` boots it. A repeat answers as the first time.
   * @throws ShimError INVALID_ARGUMENT for ids and annotations; PERMISSION_DENIED / ANNOTATION_NOT_ENABLED;
   *   ALREADY_EXISTS / SANDBOX_EXISTS when the sandbox's id is taken
   */
  async create(
    name: Named,
    what: PodRequest & {
      readonly implicit: boolean;
      /** What CRI asks for and the pod does not get. */
      readonly notApplied?: readonly string[];
    },
  ): Promise<Pod> {
    checkNamed(name);
    specOfPod(what, this.#parts.rules);
    const sandboxId = sandboxIdOf(name);
    const existing = this.#pods.get(keyOf(name));
    if (existing !== undefined) {
      if (existing.record.implicit !== what.implicit) throw notOurs(sandboxId);
      return existing;
    }
    const pod = new Pod(
      {
        version: 1,
        ...name,
        sandboxId,
        implicit: what.implicit,
        annotations: { ...what.annotations },
        labels: { ...what.labels },
        ...(what.size === undefined ? {} : { size: { ...what.size } }),
        ...(what.notApplied === undefined ? {} : { notApplied: [...what.notApplied] }),
        createdAtMs: Date.now(),
        begun: false,
        updateVolumes: [],
        containers: [],
      },
      this.#parts,
    );
    if (pod.taken || this.all().some((other) => other.sandboxId === sandboxId)) throw notOurs(sandboxId);
    this.#pods.set(keyOf(name), pod);
    const { notApplied } = pod.record;
    if (notApplied !== undefined && notApplied.length > 0)
      pod.log.warn({ notApplied }, 'pod asks for what it does not get');
    try {
      await pod.commit();
    } catch (error) {
      this.#pods.delete(keyOf(name));
      throw error;
    }
    return pod;
  }

  /** Boots a pod; one that cannot be started is forgotten. */
  async start(pod: Pod, caller: Pick<Caller, 'signal' | 'leaving'>): ReturnType<Pod['start']> {
    try {
      return await pod.start(caller);
    } finally {
      if (pod.destroyed) this.#forget(pod);
    }
  }

  /**
   * Takes away the pods that an earlier daemon was in the middle of making, unless somebody has asked for them again by
   * then: a caller who has heard no answer does so at once, and one who is gone never will.
   */
  async clearAbandoned(graceMs: number, leaving: AbortSignal): Promise<void> {
    const left = this.all().filter((pod) => pod.abandoned);
    if (left.length === 0) return;
    await sleep(graceMs, leaving);
    for (const pod of left) {
      if (!pod.abandoned || pod.destroyed) continue;
      pod.log.warn('pod that nobody has asked for again is taken away');
      try {
        await waitFor(this.destroy(pod), { signal: leaving });
      } catch (error) {
        leaving.throwIfAborted();
        pod.log.error({ problem: messageOf(error) }, 'pod not taken away');
      }
    }
  }

  find(name: Named): Pod | undefined {
    return this.#pods.get(keyOf(name));
  }

  /** @throws ShimError NOT_FOUND / SANDBOX_NOT_FOUND */
  get(name: Named): Pod {
    const pod = this.find(checkNamed(name));
    if (pod === undefined) throw noPod(name.namespace, name.id);
    return pod;
  }

  all(): readonly Pod[] {
    return [...this.#pods.values()];
  }

  /** Every container of this name, also those that are not ready. */
  containers({ namespace, id }: Named): readonly PodContainer[] {
    const pods = this.all().filter(({ record }) => record.namespace === namespace);
    return pods.flatMap((pod) => {
      const container = pod.container(id);
      return container === undefined ? [] : [{ pod, container }];
    });
  }

  /** The pod that has this container. @throws ShimError NOT_FOUND / CONTAINER_NOT_FOUND */
  ofContainer({ namespace, id }: Named): Pod {
    const [found] = this.containers({ namespace, id });
    if (found !== undefined) return found.pod;
    throw new ShimError('NOT_FOUND', `there is no container ${id} in namespace ${namespace}`, {
      reason: 'CONTAINER_NOT_FOUND',
      metadata: { namespace, id },
    });
  }

  async destroy(pod: Pod): Promise<void> {
    await pod.destroy();
    this.#forget(pod);
  }

  /** Leaves all records to the next daemon, which finds what was seen until now and nothing that is written later. */
  async leave(): Promise<void> {
    await Promise.all(this.all().map((pod) => pod.leave()));
  }

  #forget(pod: Pod): void {
    const key = keyOf(pod.record);
    if (this.#pods.get(key) === pod) this.#pods.delete(key);
  }
}

function keyOf({ namespace, id }: Named): string {
  return `${namespace}/${id}`;
}
