// Original file: proto/qshim/v1/volumes.proto

import type { VolumeToAttach as _qshim_v1_VolumeToAttach, VolumeToAttach__Output as _qshim_v1_VolumeToAttach__Output } from '../../qshim/v1/VolumeToAttach.ts';

export interface PlanRequest {
  'sandboxId'?: (string);
  'volumes'?: (_qshim_v1_VolumeToAttach)[];
}

export interface PlanRequest__Output {
  'sandboxId': (string);
  'volumes': (_qshim_v1_VolumeToAttach__Output)[];
}
