// Original file: proto/qshim/v1/volumes.proto

import type { PlannedStep as _qshim_v1_PlannedStep, PlannedStep__Output as _qshim_v1_PlannedStep__Output } from '../../qshim/v1/PlannedStep.ts';
import type { Problem as _qshim_v1_Problem, Problem__Output as _qshim_v1_Problem__Output } from '../../qshim/v1/Problem.ts';

export interface VolumePlan {
  'volumeId'?: (string);
  'pciPath'?: (string);
  'blockGraph'?: (string)[];
  'steps'?: (_qshim_v1_PlannedStep)[];
  'problems'?: (_qshim_v1_Problem)[];
}

export interface VolumePlan__Output {
  'volumeId': (string);
  'pciPath': (string);
  'blockGraph': (string)[];
  'steps': (_qshim_v1_PlannedStep__Output)[];
  'problems': (_qshim_v1_Problem__Output)[];
}
