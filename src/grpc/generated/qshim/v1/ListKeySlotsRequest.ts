// Original file: proto/qshim/v1/volumes.proto

import type { KeySlotsTarget as _qshim_v1_KeySlotsTarget, KeySlotsTarget__Output as _qshim_v1_KeySlotsTarget__Output } from '../../qshim/v1/KeySlotsTarget.ts';

export interface ListKeySlotsRequest {
  'target'?: (_qshim_v1_KeySlotsTarget | null);
}

export interface ListKeySlotsRequest__Output {
  'target': (_qshim_v1_KeySlotsTarget__Output | null);
}
