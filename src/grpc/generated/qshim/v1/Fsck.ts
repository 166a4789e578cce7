// Original file: proto/qshim/v1/volumes.proto

export const Fsck = {
  FSCK_NEVER: 'FSCK_NEVER',
  FSCK_REPAIR: 'FSCK_REPAIR',
  FSCK_FULL: 'FSCK_FULL',
} as const;

export type Fsck =
  | 'FSCK_NEVER'
  | 0
  | 'FSCK_REPAIR'
  | 1
  | 'FSCK_FULL'
  | 2

export type Fsck__Output = typeof Fsck[keyof typeof Fsck]
