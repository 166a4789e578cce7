import type { TaskCreate } from '../grpc/generated/containerd/events/TaskCreate.ts';
import type { TaskDelete } from '../grpc/generated/containerd/events/TaskDelete.ts';
import type { TaskExecAdded } from '../grpc/generated/containerd/events/TaskExecAdded.ts';
import type { TaskExecStarted } from '../grpc/generated/containerd/events/TaskExecStarted.ts';
import type { TaskExit } from '../grpc/generated/containerd/events/TaskExit.ts';
import type { TaskOOM } from '../grpc/generated/containerd/events/TaskOOM.ts';
import type { TaskPaused } from '../grpc/generated/containerd/events/TaskPaused.ts';
import type { TaskResumed } from '../grpc/generated/containerd/events/TaskResumed.ts';
import type { TaskStart } from '../grpc/generated/containerd/events/TaskStart.ts';
import type { ForwardedEvent } from './forwarder.ts';
import { messageCodec } from './wire/schema.ts';

/**
 * containerd's events about tasks (package containerd.events), and the topics that its own runtime publishes them
 * under.
 */
interface TaskEvents {
  readonly TaskCreate: TaskCreate;
  readonly TaskStart: TaskStart;
  readonly TaskExit: TaskExit;
  readonly TaskOOM: TaskOOM;
  readonly TaskDelete: TaskDelete;
  readonly TaskExecAdded: TaskExecAdded;
  readonly TaskExecStarted: TaskExecStarted;
  readonly TaskPaused: TaskPaused;
  readonly TaskResumed: TaskResumed;
}

const TOPICS: Readonly<Record<keyof TaskEvents, string>> = {
  TaskCreate: '/tasks/create',
  TaskStart: '/tasks/start',
  TaskExit: '/tasks/exit',
  TaskOOM: '/tasks/oom',
  TaskDelete: '/tasks/delete',
  TaskExecAdded: '/tasks/exec-added',
  TaskExecStarted: '/tasks/exec-started',
  TaskPaused: '/tasks/paused',
  TaskResumed: '/tasks/resumed',
};

/** An event, ready to be forwarded. */
export function taskEvent<K extends keyof TaskEvents>(
  namespace: string,
  name: K,
  event: TaskEvents[K],
  timeMs = Date.now(),
): ForwardedEvent {
  const typeUrl = `containerd.events.${name}`;
  const value = messageCodec<TaskEvents[K], TaskEvents[K]>(typeUrl).serialize(event).toString('base64');
  return { namespace, topic: TOPICS[name], typeUrl, value, timeMs };
}
