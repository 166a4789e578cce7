import { randomBytes } from 'node:crypto';
import { ShimError } from '../../base/errors.ts';
import { NO_PORTS } from './guest-side.ts';
import { ContainerProcess, type KnownProcess, type ProcessActions } from './process.ts';
import { keyOf, type ProcessRecord } from './records.ts';
import type { StreamSpec } from './types.ts';

const TOKEN_BYTES = 16;

/** A process that is about to be made. */
export interface NewProcess {
  readonly containerId: string;
  readonly execId: string | undefined;
  readonly streams: StreamSpec;
  /** An exec's `process` for crun. */
  readonly process: object | undefined;
}

/** The processes of one sandbox, by container and exec id. */
export class ProcessTable {
  readonly #sandboxId: string;
  readonly #max: number;
  readonly #actions: ProcessActions;
  readonly #processes = new Map<string, ContainerProcess>();

  constructor(sandboxId: string, max: number, actions: ProcessActions) {
    this.#sandboxId = sandboxId;
    this.#max = max;
    this.#actions = actions;
  }

  get size(): number {
    return this.#processes.size;
  }

  /** Every process, also those that are being made. */
  all(): readonly ContainerProcess[] {
    return [...this.#processes.values()];
  }

  get(key: string): ContainerProcess | undefined {
    return this.#processes.get(key);
  }

  /** A container that has been made. @throws ShimError NOT_FOUND / CONTAINER_NOT_FOUND */
  container(containerId: string): ContainerProcess {
    const container = this.#processes.get(containerId);
    if (container !== undefined && container.phase !== 'creating') return container;
    throw new ShimError('NOT_FOUND', `sandbox ${this.#sandboxId} has no container ${containerId}`, {
      reason: 'CONTAINER_NOT_FOUND',
      metadata: { sandboxId: this.#sandboxId, containerId },
    });
  }

  /** Takes the id. @throws ShimError ALREADY_EXISTS / CONTAINER_EXISTS; RESOURCE_EXHAUSTED / TOO_MANY_PROCESSES */
  register(process: NewProcess): ContainerProcess {
    const { containerId, execId } = process;
    const key = keyOf(containerId, execId);
    if (this.#processes.has(key)) {
      throw new ShimError('ALREADY_EXISTS', `there is a process ${key} already`, {
        reason: 'CONTAINER_EXISTS',
        metadata: { containerId, execId: execId ?? '' },
      });
    }
    if (this.#processes.size >= this.#max) {
      throw new ShimError('RESOURCE_EXHAUSTED', `the sandbox has ${this.#max} processes of containers already`, {
        reason: 'TOO_MANY_PROCESSES',
        metadata: { max: String(this.#max) },
      });
    }
    const token = randomBytes(TOKEN_BYTES).toString('hex');
    return this.#add({
      ...process,
      ...{ state: 'creating', paused: false, pid: 0, token, ports: NO_PORTS, exit: undefined },
    });
  }

  /** One that an earlier daemon has written down. */
  restore(record: ProcessRecord): ContainerProcess {
    const { process: text } = record;
    const process = text === undefined ? undefined : (JSON.parse(text) as object);
    const restored = this.#add({ ...record, process });
    restored.asked = true;
    return restored;
  }

  #add(record: KnownProcess): ContainerProcess {
    const process = new ContainerProcess(record, this.#actions);
    this.#processes.set(process.key, process);
    return process;
  }

  /** Nothing of it is left. */
  remove(process: ContainerProcess): void {
    this.#processes.delete(process.key);
  }
}
