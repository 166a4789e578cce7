// Original file: proto/qshim/v1/volumes.proto

import type { Volume as _qshim_v1_Volume, Volume__Output as _qshim_v1_Volume__Output } from '../../qshim/v1/Volume.ts';

export interface ListVolumesResponse {
  'volumes'?: (_qshim_v1_Volume)[];
}

export interface ListVolumesResponse__Output {
  'volumes': (_qshim_v1_Volume__Output)[];
}
