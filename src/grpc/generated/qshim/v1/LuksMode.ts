// Original file: proto/qshim/v1/volumes.proto

export const LuksMode = {
  LUKS_MODE_OPEN: 'LUKS_MODE_OPEN',
  LUKS_MODE_CREATE: 'LUKS_MODE_CREATE',
  LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY: 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY',
} as const;

export type LuksMode =
  | 'LUKS_MODE_OPEN'
  | 0
  | 'LUKS_MODE_CREATE'
  | 1
  | 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY'
  | 2

export type LuksMode__Output = typeof LuksMode[keyof typeof LuksMode]
