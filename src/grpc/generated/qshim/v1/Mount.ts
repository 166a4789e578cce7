// Original file: proto/qshim/v1/volumes.proto

import type { Format as _qshim_v1_Format, Format__Output as _qshim_v1_Format__Output } from '../../qshim/v1/Format.ts';

export interface Mount {
  'fsType'?: (string);
  'mountPoint'?: (string);
  'options'?: (string)[];
  'format'?: (_qshim_v1_Format);
}

export interface Mount__Output {
  'fsType': (string);
  'mountPoint': (string);
  'options': (string)[];
  'format': (_qshim_v1_Format__Output);
}
