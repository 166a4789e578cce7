// Original file: proto/qshim/v1/volumes.proto

export const Format = {
  FORMAT_NEVER: 'FORMAT_NEVER',
  FORMAT_IF_EMPTY: 'FORMAT_IF_EMPTY',
} as const;

export type Format =
  | 'FORMAT_NEVER'
  | 0
  | 'FORMAT_IF_EMPTY'
  | 1

export type Format__Output = typeof Format[keyof typeof Format]
