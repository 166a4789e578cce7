// Original file: proto/qshim/v1/volumes.proto

import type { EphemeralKey as _qshim_v1_EphemeralKey, EphemeralKey__Output as _qshim_v1_EphemeralKey__Output } from '../../qshim/v1/EphemeralKey.ts';
import type { KeyReference as _qshim_v1_KeyReference, KeyReference__Output as _qshim_v1_KeyReference__Output } from '../../qshim/v1/KeyReference.ts';
import type { LuksMode as _qshim_v1_LuksMode, LuksMode__Output as _qshim_v1_LuksMode__Output } from '../../qshim/v1/LuksMode.ts';

export interface GuestLuks2 {
  'ephemeralKey'?: (_qshim_v1_EphemeralKey | null);
  'providedKey'?: (_qshim_v1_KeyReference | null);
  'mode'?: (_qshim_v1_LuksMode);
  'integrity'?: (boolean);
  'sectorSize'?: (number);
  'uuid'?: (string);
  'key'?: "ephemeralKey"|"providedKey";
}

export interface GuestLuks2__Output {
  'ephemeralKey'?: (_qshim_v1_EphemeralKey__Output | null);
  'providedKey'?: (_qshim_v1_KeyReference__Output | null);
  'mode': (_qshim_v1_LuksMode__Output);
  'integrity': (boolean);
  'sectorSize': (number);
  'uuid': (string);
  'key'?: "ephemeralKey"|"providedKey";
}
