// Original file: proto/qshim/v1/volumes.proto

export const DiscardMode = {
  DISCARD_MODE_UNSPECIFIED: 'DISCARD_MODE_UNSPECIFIED',
  DISCARD_MODE_IGNORE: 'DISCARD_MODE_IGNORE',
  DISCARD_MODE_UNMAP: 'DISCARD_MODE_UNMAP',
} as const;

export type DiscardMode =
  | 'DISCARD_MODE_UNSPECIFIED'
  | 0
  | 'DISCARD_MODE_IGNORE'
  | 1
  | 'DISCARD_MODE_UNMAP'
  | 2

export type DiscardMode__Output = typeof DiscardMode[keyof typeof DiscardMode]
