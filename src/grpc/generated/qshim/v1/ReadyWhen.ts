// Original file: proto/qshim/v1/sandboxes.proto

export const ReadyWhen = {
  READY_WHEN_AGENT: 'READY_WHEN_AGENT',
  READY_WHEN_STARTED: 'READY_WHEN_STARTED',
} as const;

export type ReadyWhen =
  | 'READY_WHEN_AGENT'
  | 0
  | 'READY_WHEN_STARTED'
  | 1

export type ReadyWhen__Output = typeof ReadyWhen[keyof typeof ReadyWhen]
