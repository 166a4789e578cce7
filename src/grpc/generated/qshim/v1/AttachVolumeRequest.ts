// Original file: proto/qshim/v1/volumes.proto

import type { VolumeSpec as _qshim_v1_VolumeSpec, VolumeSpec__Output as _qshim_v1_VolumeSpec__Output } from '../../qshim/v1/VolumeSpec.ts';

export interface AttachVolumeRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'spec'?: (_qshim_v1_VolumeSpec | null);
  'timeoutMs'?: (number);
}

export interface AttachVolumeRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'spec': (_qshim_v1_VolumeSpec__Output | null);
  'timeoutMs': (number);
}
