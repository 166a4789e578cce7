// Original file: proto/qshim/v1/volumes.proto

import type { VolumePlan as _qshim_v1_VolumePlan, VolumePlan__Output as _qshim_v1_VolumePlan__Output } from '../../qshim/v1/VolumePlan.ts';

export interface PlanResponse {
  'volumes'?: (_qshim_v1_VolumePlan)[];
}

export interface PlanResponse__Output {
  'volumes': (_qshim_v1_VolumePlan__Output)[];
}
