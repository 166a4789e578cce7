import { waitFor } from '../../base/deadline.ts';
import { ShimError, messageOf } from '../../base/errors.ts';
import type { ContainerHost } from './host.ts';
import { persist } from './persist.ts';
import type { ContainerProcess } from './process.ts';
import type { ProcessTable } from './process-table.ts';
import type { GuestRuntime } from './runtime.ts';

/** How a process goes: out of the guest, its ports out of QEMU, then out of the table. */
export class Removal {
  readonly #host: ContainerHost;
  readonly #runtime: GuestRuntime;
  readonly #processes: ProcessTable;
  /** Removals in progress; repeats join them. */
  readonly #going = new Map<ContainerProcess, Promise<void>>();

  constructor(host: ContainerHost, runtime: GuestRuntime, processes: ProcessTable) {
    this.#host = host;
    this.#runtime = runtime;
    this.#processes = processes;
  }

  /** Removes everything of a process, again and again until it is done; rejects only when the VM goes first. */
  clearAway(process: ContainerProcess, force: boolean): Promise<void> {
    const { gone, log } = this.#host;
    process.phase = 'deleting';
    const going = this.#going.get(process);
    if (going !== undefined) return going;
    const removal = persist(
      gone,
      () => this.#once(process, force),
      (error) => {
        log.warn({ process: process.key, problem: messageOf(error) }, 'process not cleared away, trying again');
      },
    ).finally(() => this.#going.delete(process));
    this.#going.set(process, removal);
    return removal;
  }

  /**
   * In the background as well: whoever waits may give up, the removal goes on, and a repeat joins it.
   * @throws ShimError DEADLINE_EXCEEDED / CONTAINER_NOT_REMOVED after as long as a step may take: the guest may never
   *   answer
   */
  async delete(process: ContainerProcess, force: boolean): Promise<void> {
    const removal = this.clearAway(process, force);
    this.#host.inBackground('container removal', removal);
    const onTimeout = (): Error =>
      new ShimError('DEADLINE_EXCEEDED', `${process.key} is not removed yet; its removal goes on`, {
        reason: 'CONTAINER_NOT_REMOVED',
        metadata: { containerId: process.containerId, execId: process.execId ?? '' },
      });
    await waitFor(removal, { milliseconds: this.#host.config.container_timeout_ms, onTimeout });
  }

  /** After a failed create: waits for the end of the undoing for as long as a step may take, then lets it go on. */
  async undo(process: ContainerProcess): Promise<void> {
    const removal = this.clearAway(process, true);
    this.#host.inBackground('undo of a container', removal);
    await waitFor(removal, { milliseconds: this.#host.config.container_timeout_ms }).catch(() => undefined);
  }

  async #once(process: ContainerProcess, force: boolean): Promise<void> {
    await process.drain();
    // Of an exec that the guest was never asked to start it has nothing, and may not answer.
    if (process.execId === undefined || process.asked) await this.#runtime.delete(process.key, force);
    await this.#host.ports.remove(Object.values(process.ports).filter((nr) => nr !== 0));
    process.closeInput();
    this.#processes.remove(process);
    this.#host.commitSoon();
  }
}
