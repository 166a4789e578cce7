// Original file: proto/qshim/v1/volumes.proto

import type { VolumeToAttach as _qshim_v1_VolumeToAttach, VolumeToAttach__Output as _qshim_v1_VolumeToAttach__Output } from '../../qshim/v1/VolumeToAttach.ts';

export interface AttachManyRequest {
  'sandboxId'?: (string);
  'volumes'?: (_qshim_v1_VolumeToAttach)[];
  'atomic'?: (boolean);
  'timeoutMs'?: (number);
}

export interface AttachManyRequest__Output {
  'sandboxId': (string);
  'volumes': (_qshim_v1_VolumeToAttach__Output)[];
  'atomic': (boolean);
  'timeoutMs': (number);
}
