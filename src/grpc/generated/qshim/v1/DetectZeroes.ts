// Original file: proto/qshim/v1/volumes.proto

export const DetectZeroes = {
  DETECT_ZEROES_UNSPECIFIED: 'DETECT_ZEROES_UNSPECIFIED',
  DETECT_ZEROES_OFF: 'DETECT_ZEROES_OFF',
  DETECT_ZEROES_ON: 'DETECT_ZEROES_ON',
  DETECT_ZEROES_UNMAP: 'DETECT_ZEROES_UNMAP',
} as const;

export type DetectZeroes =
  | 'DETECT_ZEROES_UNSPECIFIED'
  | 0
  | 'DETECT_ZEROES_OFF'
  | 1
  | 'DETECT_ZEROES_ON'
  | 2
  | 'DETECT_ZEROES_UNMAP'
  | 3

export type DetectZeroes__Output = typeof DetectZeroes[keyof typeof DetectZeroes]
