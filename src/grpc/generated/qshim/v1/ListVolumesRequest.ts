// Original file: proto/qshim/v1/volumes.proto

import type { VolumeState as _qshim_v1_VolumeState, VolumeState__Output as _qshim_v1_VolumeState__Output } from '../../qshim/v1/VolumeState.ts';

export interface ListVolumesRequest {
  'sandboxId'?: (string);
  'states'?: (_qshim_v1_VolumeState)[];
}

export interface ListVolumesRequest__Output {
  'sandboxId': (string);
  'states': (_qshim_v1_VolumeState__Output)[];
}
