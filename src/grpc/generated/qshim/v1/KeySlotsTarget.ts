// Original file: proto/qshim/v1/volumes.proto

import type { AttachedVolume as _qshim_v1_AttachedVolume, AttachedVolume__Output as _qshim_v1_AttachedVolume__Output } from '../../qshim/v1/AttachedVolume.ts';

export interface KeySlotsTarget {
  'attached'?: (_qshim_v1_AttachedVolume | null);
  'image'?: (string);
  'target'?: "attached"|"image";
}

export interface KeySlotsTarget__Output {
  'attached'?: (_qshim_v1_AttachedVolume__Output | null);
  'image'?: (string);
  'target'?: "attached"|"image";
}
