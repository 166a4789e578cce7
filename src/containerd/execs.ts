import { createHash } from 'node:crypto';
import { waitFor } from '../base/deadline.ts';
import { ShimError, messageOf } from '../base/errors.ts';
import { parseProcess, type OciProcess } from '../guest/containers/oci.ts';
import type { ExecProcessRequest__Output } from '../grpc/generated/containerd/task/v3/ExecProcessRequest.ts';
import type { Caller } from './caller.ts';
import type { EventForwarder } from './forwarder.ts';
import { processKey } from './live-process.ts';
import type { LiveProcesses } from './live-processes.ts';
import type { Pod, PodContainer } from './pod.ts';
import { forget, type ContainerRecord, type ExecRecord } from './pod-record.ts';
import { ProcessIo } from './process-io.ts';
import type { RelayLink } from './relay-link.ts';
import { streamsOf } from './task-create.ts';
import { taskEvent } from './task-events.ts';
import { jsonOf } from './wire/messages.ts';

interface Parts {
  readonly live: Pick<LiveProcesses, 'add'>;
  readonly events: Pick<EventForwarder, 'publish'>;
  readonly relay: Pick<RelayLink, 'hold' | 'release'>;
}

/**
 * How an exec comes to be, and how one that did not is undone.
 *
 * INVARIANT: an exec is on record before the guest or the relay have anything of it, and until they have nothing of it
 * any more; it is `ready` on disk before containerd hears of it.
 */
export class Execs {
  readonly #parts: Parts;
  /** In progress, by the process's key. */
  readonly #making = new Map<string, { readonly exec: ExecRecord; readonly done: Promise<void> }>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /**
   * The same once more, from a caller that has not heard the first answer, joins it or is answered as the first time.
   * It ends with its caller; what it has begun goes on.
   * @throws ShimError ALREADY_EXISTS / CONTAINER_EXISTS for another process under an id that is taken;
   *   INVALID_ARGUMENT / INVALID_CONFIG_JSON for what is no process; UNAVAILABLE / EXEC_NOT_UNDONE
   */
  async make(request: ExecProcessRequest__Output, { pod, container }: PodContainer, { signal }: Caller): Promise<void> {
    const { execId: id, stdin, stdout, stderr, terminal } = request;
    const spec = jsonOf('spec', request.spec);
    // Of what was sent, not of what was understood of it: records outlive the version that wrote them.
    const digest = digestOf([stdin, stdout, stderr, terminal, spec]);
    const wanted: ExecRecord = {
      ...{ id, stdin, stdout, stderr, terminal, digest },
      ...{ stdinClosed: false, started: false, ready: false },
    };
    const key = processKey(pod, container.id, id);
    const joined = this.#making.get(key);
    const taken = joined?.exec ?? container.execs.find((exec) => exec.id === id && exec.ready);
    if (taken !== undefined && !isSame(taken, wanted)) throw exists(container.id, id);
    if (joined === undefined && taken !== undefined) return;
    const done =
      joined?.done ??
      this.#make({ pod, container }, wanted, parseProcess(spec)).finally(() => this.#making.delete(key));
    if (joined === undefined) this.#making.set(key, { exec: wanted, done });
    done.catch(() => undefined); // The caller may go before the end.
    await waitFor(done, { signal });
  }

  async #make({ pod, container }: PodContainer, exec: ExecRecord, process: OciProcess): Promise<void> {
    await this.#clearUnready({ pod, container }, exec.id);
    const { events, live, relay } = this.#parts;
    let io: ProcessIo | undefined;
    container.execs.push(exec);
    try {
      await pod.commit();
      io = ProcessIo.open(exec, pod.log);
      await relay.hold(processKey(pod, container.id, exec.id), io.fifos);
      const guest = await pod.containers.exec(container.id, { id: exec.id, process, streams: streamsOf(exec) });
      exec.ready = true;
      await pod.commit();
      live.add(pod, container, exec, guest, io);
    } catch (error) {
      await io?.close();
      await this.undo(pod, container, exec);
      throw error;
    }
    const added = { containerId: container.id, execId: exec.id };
    await events.publish(taskEvent(pod.record.namespace, 'TaskExecAdded', added));
  }

  /**
   * Never throws: what could not be undone stays on record as not ready, and is undone when somebody asks for it again.
   */
  async undo(pod: Pod, container: ContainerRecord, exec: ExecRecord): Promise<void> {
    exec.ready = false;
    await this.#parts.relay.release(processKey(pod, container.id, exec.id));
    try {
      if (pod.snapshot !== undefined) await pod.containers.discard(container.id, exec.id);
      forget(container.execs, exec);
      await pod.commit();
    } catch (error) {
      const about = { containerId: container.id, execId: exec.id, problem: messageOf(error) };
      pod.log.warn(about, 'failed exec not undone');
    }
  }

  /**
   * Waits until an exec is made, or nothing of it is left.
   * @throws ShimError UNAVAILABLE / EXEC_NOT_UNDONE
   */
  async settled({ pod, container }: PodContainer, execId: string): Promise<void> {
    const making = this.#making.get(processKey(pod, container.id, execId));
    if (making === undefined) await this.#clearUnready({ pod, container }, execId);
    else await making.done.catch(() => undefined); // Told to whoever asked for it.
  }

  async #clearUnready({ pod, container }: PodContainer, id: string): Promise<void> {
    const left = container.execs.find((exec) => exec.id === id && !exec.ready);
    if (left === undefined) return;
    await this.undo(pod, container, left);
    if (!container.execs.includes(left)) return;
    throw new ShimError(
      'UNAVAILABLE',
      `what a failed exec ${id} in container ${container.id} has left is not removed`,
      {
        reason: 'EXEC_NOT_UNDONE',
        metadata: { id: container.id, execId: id },
      },
    );
  }
}

/** Records of earlier versions have no digest: there the streams say it. */
function isSame(taken: ExecRecord, wanted: ExecRecord): boolean {
  if (taken.digest !== undefined) return taken.digest === wanted.digest;
  const streams = ({ stdin, stdout, stderr, terminal }: ExecRecord): string =>
    JSON.stringify([stdin, stdout, stderr, terminal]);
  return streams(taken) === streams(wanted);
}

function digestOf(asked: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(asked)).digest('hex');
}

function exists(containerId: string, execId: string): ShimError {
  return new ShimError('ALREADY_EXISTS', `container ${containerId} has a process ${execId} already`, {
    reason: 'CONTAINER_EXISTS',
    metadata: { id: containerId, execId },
  });
}
