// Original file: proto/qshim/v1/sandboxes.proto

export const StartKind = {
  START_KIND_UNSPECIFIED: 'START_KIND_UNSPECIFIED',
  START_KIND_COLD_BOOT: 'START_KIND_COLD_BOOT',
  START_KIND_CLONE: 'START_KIND_CLONE',
  START_KIND_POOL: 'START_KIND_POOL',
} as const;

export type StartKind =
  | 'START_KIND_UNSPECIFIED'
  | 0
  | 'START_KIND_COLD_BOOT'
  | 1
  | 'START_KIND_CLONE'
  | 2
  | 'START_KIND_POOL'
  | 3

export type StartKind__Output = typeof StartKind[keyof typeof StartKind]
