// Original file: proto/qshim/v1/volumes.proto

import type { Format as _qshim_v1_Format, Format__Output as _qshim_v1_Format__Output } from '../../qshim/v1/Format.ts';
import type { Fsck as _qshim_v1_Fsck, Fsck__Output as _qshim_v1_Fsck__Output } from '../../qshim/v1/Fsck.ts';

export interface Mount {
  'fsType'?: (string);
  'mountPoint'?: (string);
  'options'?: (string)[];
  'format'?: (_qshim_v1_Format);
  'partition'?: (number);
  'fsck'?: (_qshim_v1_Fsck);
}

export interface Mount__Output {
  'fsType': (string);
  'mountPoint': (string);
  'options': (string)[];
  'format': (_qshim_v1_Format__Output);
  'partition': (number);
  'fsck': (_qshim_v1_Fsck__Output);
}
