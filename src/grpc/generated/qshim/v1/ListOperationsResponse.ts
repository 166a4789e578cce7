// Original file: proto/qshim/v1/operations.proto

import type { Operation as _qshim_v1_Operation, Operation__Output as _qshim_v1_Operation__Output } from '../../qshim/v1/Operation.ts';

export interface ListOperationsResponse {
  'operations'?: (_qshim_v1_Operation)[];
}

export interface ListOperationsResponse__Output {
  'operations': (_qshim_v1_Operation__Output)[];
}
