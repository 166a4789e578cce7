// Original file: proto/qshim/v1/volumes.proto

import type { VolumeSpec as _qshim_v1_VolumeSpec, VolumeSpec__Output as _qshim_v1_VolumeSpec__Output } from '../../qshim/v1/VolumeSpec.ts';

export interface VolumeToAttach {
  'volumeId'?: (string);
  'spec'?: (_qshim_v1_VolumeSpec | null);
}

export interface VolumeToAttach__Output {
  'volumeId': (string);
  'spec': (_qshim_v1_VolumeSpec__Output | null);
}
