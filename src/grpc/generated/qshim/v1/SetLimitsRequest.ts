// Original file: proto/qshim/v1/volumes.proto

import type { IoLimits as _qshim_v1_IoLimits, IoLimits__Output as _qshim_v1_IoLimits__Output } from '../../qshim/v1/IoLimits.ts';

export interface SetLimitsRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'limits'?: (_qshim_v1_IoLimits | null);
}

export interface SetLimitsRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'limits': (_qshim_v1_IoLimits__Output | null);
}
