import { join } from 'node:path';
import { ShimError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { specFromAnnotations } from './annotations.ts';
import { checkNamed, sandboxIdOf, type Named } from './ids.ts';
import { Pod, noPod } from './pod.ts';
import { readPods } from './pod-record.ts';

/** Below the daemon's state directory. */
export const CONTAINERD_DIRECTORY = '.containerd';

interface PodsOptions {
  readonly manager: SandboxManager;
  readonly stateDir: string;
  readonly log: Logger;
}

/** All pods that containerd has asked for. */
export class Pods {
  readonly #parts: { readonly manager: SandboxManager; readonly directory: string; readonly log: Logger };
  readonly #pods = new Map<string, Pod>();

  private constructor(options: PodsOptions) {
    const { manager, stateDir, log } = options;
    this.#parts = { manager, log, directory: join(stateDir, CONTAINERD_DIRECTORY, 'pods') };
  }

  /** Reads what an earlier daemon has left; the manager has adopted the sandboxes by then. */
  static async open(options: PodsOptions): Promise<Pods> {
    const pods = new Pods(options);
    for (const record of await readPods(pods.#parts.directory, options.log)) {
      const pod = new Pod(record, pods.#parts);
      pods.#pods.set(pod.sandboxId, pod);
      if (record.startedAtMs !== undefined) pod.watch();
    }
    return pods;
  }

  /**
   * Takes note of a pod; `start` boots it. A repeat answers as the first time.
   * @throws ShimError INVALID_ARGUMENT for ids and annotations
   */
  async create(
    name: Named,
    what: {
      readonly implicit: boolean;
      readonly annotations: Readonly<Record<string, string>>;
      readonly labels: Readonly<Record<string, string>>;
    },
  ): Promise<Pod> {
    checkNamed(name);
    specFromAnnotations(what.annotations, what.labels);
    const sandboxId = sandboxIdOf(name);
    const existing = this.#pods.get(sandboxId);
    if (existing !== undefined) return existing;
    const pod = new Pod(
      {
        version: 1,
        ...name,
        sandboxId,
        implicit: what.implicit,
        annotations: { ...what.annotations },
        labels: { ...what.labels },
        createdAtMs: Date.now(),
        updateVolumes: [],
        containers: [],
      },
      this.#parts,
    );
    this.#pods.set(sandboxId, pod);
    try {
      await pod.commit();
    } catch (error) {
      this.#pods.delete(sandboxId);
      throw error;
    }
    return pod;
  }

  /** Boots a pod; one that cannot be started is forgotten. */
  async start(pod: Pod, signal: AbortSignal): ReturnType<Pod['start']> {
    try {
      return await pod.start(signal);
    } catch (error) {
      this.#forget(pod);
      throw error;
    }
  }

  find(name: Named): Pod | undefined {
    return this.#pods.get(sandboxIdOf(name));
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

  /** The pod that has this container. @throws ShimError NOT_FOUND / CONTAINER_NOT_FOUND */
  ofContainer({ namespace, id }: Named): Pod {
    const pod = this.all().find(
      ({ record }) => record.namespace === namespace && record.containers.some((c) => c.id === id),
    );
    if (pod !== undefined) return pod;
    throw new ShimError('NOT_FOUND', `there is no container ${id} in namespace ${namespace}`, {
      reason: 'CONTAINER_NOT_FOUND',
      metadata: { namespace, id },
    });
  }

  async destroy(pod: Pod): Promise<void> {
    await pod.destroy();
    this.#forget(pod);
  }

  #forget(pod: Pod): void {
    if (this.#pods.get(pod.sandboxId) === pod) this.#pods.delete(pod.sandboxId);
  }
}
