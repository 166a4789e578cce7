// Original file: proto/qshim/v1/volumes.proto

import type { BatchResult as _qshim_v1_BatchResult, BatchResult__Output as _qshim_v1_BatchResult__Output } from '../../qshim/v1/BatchResult.ts';

export interface BatchResponse {
  'results'?: (_qshim_v1_BatchResult)[];
}

export interface BatchResponse__Output {
  'results': (_qshim_v1_BatchResult__Output)[];
}
