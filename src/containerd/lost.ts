import { Backoff } from '../base/backoff.ts';
import { sleep, waitFor } from '../base/deadline.ts';
import { isShimError, messageOf } from '../base/errors.ts';
import type { Caller } from './caller.ts';
import { SIGKILL } from './kill.ts';
import type { PodContainer } from './pod.ts';

/** How long containerd has to remove a container whose end it was told. */
const COLLECT_MS = 10_000;
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 10_000;

interface ProcessRequest {
  readonly id: string;
  readonly execId: string;
}

/** Of the Task service (task.ts). */
interface Tasks {
  kill(request: ProcessRequest & { readonly signal: number; readonly all: boolean }, caller: Caller): Promise<unknown>;
  wait(request: ProcessRequest, caller: Caller): Promise<unknown>;
  delete(request: ProcessRequest, caller: Caller): Promise<unknown>;
}

/**
 * Takes away a container whose relay has died. To containerd the connection's end was the container's: CRI has recorded
 * exit code 255, and asks neither for an end nor for a removal any more, though it refuses to remove a pod in which a
 * task is left (containerd: "cannot delete running task"). So the container is killed. Once its end is seen it is
 * told as any other, by which CRI removes the container; what nobody comes for is removed all the same.
 *
 * Goes on until nothing of the container is left. @throws the reason of `leaving`, which ends it
 */
export async function removeLost(tasks: Tasks, lost: PodContainer, leaving: AbortSignal): Promise<void> {
  const { pod, container } = lost;
  const caller: Caller = { namespace: pod.record.namespace, signal: leaving, leaving };
  const process = { id: container.id, execId: '' };
  // Another of the same name is not the one that is lost.
  const isLeft = (): boolean => !pod.destroyed && pod.record.containers.includes(container);
  const steps = [
    (): Promise<unknown> => tasks.kill({ ...process, signal: SIGKILL, all: true }, caller),
    () => tasks.wait(process, caller),
    () => sleep(COLLECT_MS, leaving),
    () => tasks.delete(process, caller),
  ];
  const backoff = new Backoff(RETRY_MIN_MS, RETRY_MAX_MS);
  while (isLeft()) {
    try {
      for (const step of steps) if (isLeft()) await passing(waitFor<unknown>(step(), { signal: leaving }));
      return;
    } catch (error) {
      leaving.throwIfAborted();
      pod.log.warn({ containerId: container.id, problem: messageOf(error) }, 'lost container not removed yet');
      await backoff.pause(leaving);
    }
  }
}

/** One that is still being made has no process yet, and one that is gone has none any more. */
async function passing(step: Promise<unknown>): Promise<void> {
  try {
    await step;
  } catch (error) {
    if (!isShimError(error, 'NOT_FOUND')) throw error;
  }
}
