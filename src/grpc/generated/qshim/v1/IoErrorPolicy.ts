// Original file: proto/qshim/v1/volumes.proto

export const IoErrorPolicy = {
  IO_ERROR_POLICY_UNSPECIFIED: 'IO_ERROR_POLICY_UNSPECIFIED',
  IO_ERROR_POLICY_REPORT: 'IO_ERROR_POLICY_REPORT',
  IO_ERROR_POLICY_IGNORE: 'IO_ERROR_POLICY_IGNORE',
  IO_ERROR_POLICY_STOP: 'IO_ERROR_POLICY_STOP',
  IO_ERROR_POLICY_STOP_ON_ENOSPC: 'IO_ERROR_POLICY_STOP_ON_ENOSPC',
} as const;

export type IoErrorPolicy =
  | 'IO_ERROR_POLICY_UNSPECIFIED'
  | 0
  | 'IO_ERROR_POLICY_REPORT'
  | 1
  | 'IO_ERROR_POLICY_IGNORE'
  | 2
  | 'IO_ERROR_POLICY_STOP'
  | 3
  | 'IO_ERROR_POLICY_STOP_ON_ENOSPC'
  | 4

export type IoErrorPolicy__Output = typeof IoErrorPolicy[keyof typeof IoErrorPolicy]
