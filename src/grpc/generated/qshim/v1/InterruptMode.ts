// Original file: proto/qshim/v1/volumes.proto

export const InterruptMode = {
  INTERRUPT_MODE_UNSPECIFIED: 'INTERRUPT_MODE_UNSPECIFIED',
  INTERRUPT_MODE_PER_QUEUE: 'INTERRUPT_MODE_PER_QUEUE',
  INTERRUPT_MODE_SHARED: 'INTERRUPT_MODE_SHARED',
  INTERRUPT_MODE_LINE: 'INTERRUPT_MODE_LINE',
} as const;

export type InterruptMode =
  | 'INTERRUPT_MODE_UNSPECIFIED'
  | 0
  | 'INTERRUPT_MODE_PER_QUEUE'
  | 1
  | 'INTERRUPT_MODE_SHARED'
  | 2
  | 'INTERRUPT_MODE_LINE'
  | 3

export type InterruptMode__Output = typeof InterruptMode[keyof typeof InterruptMode]
