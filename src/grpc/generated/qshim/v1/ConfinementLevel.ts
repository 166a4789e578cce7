// Original file: proto/qshim/v1/sandboxes.proto

export const ConfinementLevel = {
  CONFINEMENT_LEVEL_UNSPECIFIED: 'CONFINEMENT_LEVEL_UNSPECIFIED',
  CONFINEMENT_LEVEL_OFF: 'CONFINEMENT_LEVEL_OFF',
  CONFINEMENT_LEVEL_DEGRADED: 'CONFINEMENT_LEVEL_DEGRADED',
  CONFINEMENT_LEVEL_FULL: 'CONFINEMENT_LEVEL_FULL',
} as const;

export type ConfinementLevel =
  | 'CONFINEMENT_LEVEL_UNSPECIFIED'
  | 0
  | 'CONFINEMENT_LEVEL_OFF'
  | 1
  | 'CONFINEMENT_LEVEL_DEGRADED'
  | 2
  | 'CONFINEMENT_LEVEL_FULL'
  | 3

export type ConfinementLevel__Output = typeof ConfinementLevel[keyof typeof ConfinementLevel]
