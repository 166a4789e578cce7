import { ShimError, messageOf } from '../base/errors.ts';
import type { GuestProcess, ProcessExit } from '../guest/containers/types.ts';
import type { EventForwarder } from './forwarder.ts';
import { EXIT_UNKNOWN, type Pod } from './pod.ts';
import type { ContainerRecord, ExecRecord, ExitRecord } from './pod-record.ts';
import type { ProcessIo } from './process-io.ts';
import type { RelayLink } from './relay-link.ts';
import { taskEvent } from './task-events.ts';

type Status = 'CREATED' | 'RUNNING' | 'PAUSED' | 'STOPPED' | 'UNKNOWN';

const STATUSES: Readonly<Record<GuestProcess['state'], Status>> = {
  created: 'CREATED',
  running: 'RUNNING',
  paused: 'PAUSED',
  // An end that was not told yet: there is no exit code to go with STOPPED.
  stopped: 'RUNNING',
};

/**
 * A container's init process, or one of its execs, as this daemon serves it: the record that outlives the daemon, the
 * process in the guest, and the joined streams. Its end is recorded, then told to containerd, exactly once in this
 * daemon's life.
 */
export class LiveProcess {
  readonly pod: Pod;
  readonly container: ContainerRecord;
  readonly exec: ExecRecord | undefined;
  /** Undefined: nothing of it is left in the guest. */
  readonly guest: GuestProcess | undefined;
  readonly #events: Pick<EventForwarder, 'publish'>;
  readonly #relay: Pick<RelayLink, 'hold' | 'release'>;
  readonly #ended = Promise.withResolvers<ExitRecord>();
  #io: ProcessIo | undefined;
  /** The start in progress or done; repeats join it, and the end is told after it. */
  #starting: Promise<void> | undefined;

  constructor(parts: {
    readonly pod: Pod;
    readonly container: ContainerRecord;
    readonly exec: ExecRecord | undefined;
    readonly guest: GuestProcess | undefined;
    readonly io: ProcessIo | undefined;
    readonly events: Pick<EventForwarder, 'publish'>;
    readonly relay: Pick<RelayLink, 'hold' | 'release'>;
  }) {
    this.pod = parts.pod;
    this.container = parts.container;
    this.exec = parts.exec;
    this.guest = parts.guest;
    this.#io = parts.io;
    this.#events = parts.events;
    this.#relay = parts.relay;
    this.#follow();
  }

  get record(): ContainerRecord | ExecRecord {
    return this.exec ?? this.container;
  }

  /** Unique among all processes that the daemon serves. */
  get key(): string {
    return processKey(this.pod, this.container.id, this.exec?.id);
  }

  /** Resolves when the process has been seen to have ended. */
  get ended(): Promise<ExitRecord> {
    return this.#ended.promise;
  }

  get status(): Status {
    if (this.record.exit !== undefined) return 'STOPPED';
    return this.guest === undefined ? 'UNKNOWN' : STATUSES[this.guest.state];
  }

  #follow(): void {
    const { guest, record, pod } = this;
    const io = this.#io;
    if (guest !== undefined && io !== undefined) {
      const { key } = this;
      io.join(guest, {
        hold: (fifos) => this.#relay.hold(key, fifos),
        release: () => this.#relay.release(key),
      });
      // What the last daemon left is being delivered: it must not be delivered again.
      void pod.commitSoon();
    } else void this.#relay.release(this.key);
    if (record.exit !== undefined) {
      void this.#tell(record.exit);
      return;
    }
    if (guest === undefined) {
      void this.#end({ code: EXIT_UNKNOWN, atMs: Date.now(), oomKilled: false, vmGone: true });
      return;
    }
    guest.exited
      .then((exit) => this.#end(exit))
      .catch((error: unknown) => pod.log.error({ problem: messageOf(error) }, 'end of a process not recorded'));
  }

  /**
   * Tells of the end, once containerd has everything that the process wrote: its clients stop reading when they hear of
   * the end, and megabytes may still be on their way out of the guest then.
   */
  async #end({ code, atMs, oomKilled }: ProcessExit): Promise<void> {
    await this.#starting?.catch(() => undefined);
    if ((await this.#io?.delivered()) === 'left') return; // The next daemon tells.
    const exit = { code, atMs };
    this.record.exit = exit;
    this.record.untold = { oomKilled };
    void this.pod.commitSoon();
    await this.#tell(exit);
  }

  /** The event is told until it is known to be on disk: a daemon that is killed in between leaves it to the next. */
  async #tell(exit: ExitRecord): Promise<void> {
    const { untold } = this.record;
    if (untold !== undefined) {
      await this.#publishExit(exit, untold.oomKilled);
      this.record.untold = undefined;
      void this.pod.commitSoon();
    }
    this.#ended.resolve(exit);
  }

  async #publishExit({ code, atMs }: ExitRecord, oomKilled: boolean): Promise<void> {
    const { pod, container, exec } = this;
    const { namespace } = pod.record;
    if (oomKilled) await this.#events.publish(taskEvent(namespace, 'TaskOOM', { containerId: container.id }));
    await this.#events.publish(
      taskEvent(namespace, 'TaskExit', {
        containerId: container.id,
        id: exec?.id ?? container.id,
        pid: pod.pid,
        exitStatus: code,
        exitedAt: { seconds: Math.floor(atMs / 1000), nanos: Math.round((atMs % 1000) * 1e6) },
      }),
    );
  }

  /** Runs it; a repeat joins, or finds it running. */
  async start(): Promise<void> {
    this.#starting ??= this.#start().catch((error: unknown) => {
      this.#starting = undefined;
      throw error;
    });
    await this.#starting;
  }

  async #start(): Promise<void> {
    const { pod, container, exec, record } = this;
    if (record.started) return;
    const guest = this.inGuest();
    const io = this.#io;
    io?.openStdin();
    if (io !== undefined && record.stdin !== '') await this.#relay.hold(this.key, io.fifos);
    // It has run when a daemon was killed before it had said so. One that ended before it ran is refused.
    if (!guest.ran) await guest.start();
    record.started = true;
    await pod.commit();
    const { namespace } = pod.record;
    const containerId = container.id;
    await this.#events.publish(
      exec === undefined
        ? taskEvent(namespace, 'TaskStart', { containerId, pid: pod.pid })
        : taskEvent(namespace, 'TaskExecStarted', { containerId, execId: exec.id, pid: pod.pid }),
    );
  }

  /** @throws ShimError FAILED_PRECONDITION / CONTAINER_STATE when the guest has nothing of it any more */
  inGuest(): GuestProcess {
    if (this.guest !== undefined) return this.guest;
    throw new ShimError('FAILED_PRECONDITION', `${this.container.id} is not in the guest any more`, {
      reason: 'CONTAINER_STATE',
      metadata: { containerId: this.container.id },
    });
  }

  async closeStdin(): Promise<void> {
    this.record.stdinClosed = true;
    this.#io?.closeStdin();
    await this.pod.commit();
  }

  /** Takes its traces out of the guest: a process that was never started is ended first. @throws while it runs */
  async remove(): Promise<ExitRecord> {
    const { guest, pod } = this;
    if (guest !== undefined && pod.snapshot?.state === 'running') {
      if (this.record.exit === undefined && guest.state === 'created') await this.#endUnstarted(guest);
      if (this.record.exit === undefined) {
        throw new ShimError('FAILED_PRECONDITION', `${this.container.id} still runs`, { reason: 'CONTAINER_STATE' });
      }
      // A process that never ran has written nothing, and nothing ends its streams.
      if (!this.record.started) await this.leave('drop');
      else if ((await this.#io?.delivered()) === 'unread') {
        pod.log.warn('output of an ended process that nobody reads is dropped');
        await this.leave('drop');
      }
      await guest.delete();
    }
    const exit = this.record.exit ?? { code: EXIT_UNKNOWN, atMs: Date.now() };
    await this.leave();
    await this.#relay.release(this.key);
    return exit;
  }

  async #endUnstarted(guest: GuestProcess): Promise<void> {
    if (this.exec !== undefined) {
      // An exec that never ran is only a registration.
      this.record.exit = { code: EXIT_UNKNOWN, atMs: Date.now() };
      return;
    }
    await guest.kill(9);
    await this.ended;
  }

  /** Lets go of the streams; what was read is delivered, the rest waits in the guest. */
  async leave(how: 'deliver' | 'drop' = 'deliver'): Promise<void> {
    const io = this.#io;
    this.#io = undefined;
    await io?.close(how);
  }
}

export function processKey(pod: Pod, containerId: string, execId: string | undefined): string {
  return [pod.sandboxId, containerId, execId ?? ''].join('/');
}
