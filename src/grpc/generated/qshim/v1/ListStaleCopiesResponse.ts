// Original file: proto/qshim/v1/volumes.proto

import type { StaleCopy as _qshim_v1_StaleCopy, StaleCopy__Output as _qshim_v1_StaleCopy__Output } from '../../qshim/v1/StaleCopy.ts';

export interface ListStaleCopiesResponse {
  'copies'?: (_qshim_v1_StaleCopy)[];
}

export interface ListStaleCopiesResponse__Output {
  'copies': (_qshim_v1_StaleCopy__Output)[];
}
