/** containerd's Task service, in the version that the daemon speaks. */
export const TASK_SERVICE = 'containerd.task.v3.Task';

/** Every method that containerd calls. */
export const METHODS: Readonly<Record<string, readonly string[]>> = {
  'containerd.services.sandbox.v1.Controller': [
    ...['Create', 'Start', 'Platform', 'Stop', 'Wait', 'Status', 'Shutdown', 'Metrics', 'Update'],
  ],
  [TASK_SERVICE]: [
    ...['State', 'Create', 'Start', 'Delete', 'Pids', 'Pause', 'Resume', 'Checkpoint', 'Kill', 'Exec', 'ResizePty'],
    ...['CloseIO', 'Update', 'Wait', 'Stats', 'Connect', 'Shutdown'],
  ],
};
