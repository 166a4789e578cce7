// Original file: proto/qshim/v1/volumes.proto

import type { KeySlotsTarget as _qshim_v1_KeySlotsTarget, KeySlotsTarget__Output as _qshim_v1_KeySlotsTarget__Output } from '../../qshim/v1/KeySlotsTarget.ts';
import type { KeyReference as _qshim_v1_KeyReference, KeyReference__Output as _qshim_v1_KeyReference__Output } from '../../qshim/v1/KeyReference.ts';

export interface RemoveKeyRequest {
  'target'?: (_qshim_v1_KeySlotsTarget | null);
  'key'?: (_qshim_v1_KeyReference | null);
  'slot'?: (number);
  '_slot'?: "slot";
}

export interface RemoveKeyRequest__Output {
  'target': (_qshim_v1_KeySlotsTarget__Output | null);
  'key': (_qshim_v1_KeyReference__Output | null);
  'slot'?: (number);
  '_slot'?: "slot";
}
