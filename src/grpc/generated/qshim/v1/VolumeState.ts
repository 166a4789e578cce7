// Original file: proto/qshim/v1/volumes.proto

export const VolumeState = {
  VOLUME_STATE_UNSPECIFIED: 'VOLUME_STATE_UNSPECIFIED',
  VOLUME_STATE_PENDING: 'VOLUME_STATE_PENDING',
  VOLUME_STATE_ATTACHED: 'VOLUME_STATE_ATTACHED',
  VOLUME_STATE_DETACHING: 'VOLUME_STATE_DETACHING',
  VOLUME_STATE_REMOVED: 'VOLUME_STATE_REMOVED',
} as const;

export type VolumeState =
  | 'VOLUME_STATE_UNSPECIFIED'
  | 0
  | 'VOLUME_STATE_PENDING'
  | 1
  | 'VOLUME_STATE_ATTACHED'
  | 2
  | 'VOLUME_STATE_DETACHING'
  | 3
  | 'VOLUME_STATE_REMOVED'
  | 4

export type VolumeState__Output = typeof VolumeState[keyof typeof VolumeState]
