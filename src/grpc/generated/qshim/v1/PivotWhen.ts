// Original file: proto/qshim/v1/volumes.proto

export const PivotWhen = {
  PIVOT_AUTOMATIC: 'PIVOT_AUTOMATIC',
  PIVOT_ASKED: 'PIVOT_ASKED',
} as const;

export type PivotWhen =
  | 'PIVOT_AUTOMATIC'
  | 0
  | 'PIVOT_ASKED'
  | 1

export type PivotWhen__Output = typeof PivotWhen[keyof typeof PivotWhen]
