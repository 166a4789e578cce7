import { messageOf } from '../base/errors.ts';
import type { GuestProcess } from '../guest/containers/types.ts';
import type { EventForwarder } from './forwarder.ts';
import { LiveProcess, processKey } from './live-process.ts';
import type { Pod } from './pod.ts';
import type { ContainerRecord, ExecRecord } from './pod-record.ts';
import { ProcessIo } from './process-io.ts';
import type { RelayLink } from './relay-link.ts';

interface Parts {
  readonly events: Pick<EventForwarder, 'publish'>;
  readonly relay: Pick<RelayLink, 'hold' | 'release'>;
}

/**
 * All processes that the daemon serves, by key.
 *
 * INVARIANT: what is listed here, and what is parting, has its streams open; nothing else has. A process is listed
 * until it is deleted, its container is, or its pod.
 */
export class LiveProcesses {
  readonly #parts: Parts;
  readonly #live = new Map<string, LiveProcess>();
  /** Not listed any more; their last output is on its way to whoever reads it. */
  readonly #parting = new Set<LiveProcess>();
  /** Pods whose end is waited for: once each, so that a pod does not keep what was deleted long before it. */
  readonly #watched = new WeakSet<Pod>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  find(pod: Pod, containerId: string, execId: string | undefined): LiveProcess | undefined {
    return this.#live.get(processKey(pod, containerId, execId));
  }

  add(
    pod: Pod,
    container: ContainerRecord,
    exec: ExecRecord | undefined,
    guest: GuestProcess | undefined,
    io: ProcessIo | undefined,
  ): void {
    const { events, relay } = this.#parts;
    const live = new LiveProcess({ pod, container, exec, guest, io, events, relay });
    this.#live.set(live.key, live);
    if (pod.destroyed) this.part(live);
    if (this.#watched.has(pod)) return;
    this.#watched.add(pod);
    void pod.gone.then(() => {
      for (const each of [...this.#live.values()]) if (each.pod === pod) this.part(each);
    });
  }

  /** Takes up a process that an earlier daemon served. */
  async revive(pod: Pod, container: ContainerRecord, exec: ExecRecord | undefined): Promise<void> {
    const { relay } = this.#parts;
    const guest = pod.snapshot === undefined ? undefined : pod.containers.find(container.id, exec?.id);
    let io: ProcessIo | undefined;
    try {
      io = guest === undefined ? undefined : ProcessIo.open(exec ?? container, pod.log);
    } catch (error) {
      pod.log.warn({ containerId: container.id, problem: messageOf(error) }, 'streams not joined again');
    }
    // The relay may hold the input of one whose start was under way: that stays until the start comes again.
    const { started, stdin } = exec ?? container;
    if (io !== undefined && (started || stdin === '')) {
      await relay.hold(processKey(pod, container.id, exec?.id), io.fifos);
    }
    this.add(pod, container, exec, guest, io);
  }

  /** For one that was deleted: nothing of it is open any more. */
  remove(live: LiveProcess): void {
    this.#live.delete(live.key);
  }

  /**
   * For one whose container or pod has gone with it inside: nobody finds it any more, and once its end has been told
   * (what it wrote is delivered, or nobody reads it) its streams are closed.
   */
  part(live: LiveProcess): void {
    this.#live.delete(live.key);
    this.#parting.add(live);
    void live.ended.then(() => this.#close(live));
  }

  async #close(live: LiveProcess): Promise<void> {
    this.#parting.delete(live);
    await live.leave('drop');
    // Unless another has its name by now, and its hold.
    if (!this.#live.has(live.key)) await this.#parts.relay.release(live.key);
  }

  /** Lets go of all streams: the daemon ends, the containers go on. */
  async release(): Promise<void> {
    const live = [...this.#live.values()];
    await Promise.all([
      ...live.map((each) => each.leave()),
      // Of these there is no record with which another daemon could deliver.
      ...[...this.#parting].map((each) => this.#close(each)),
    ]);
    // What could not be delivered is in the records now.
    await Promise.all([...new Set(live.map(({ pod }) => pod))].map((pod) => pod.commitSoon()));
  }
}
