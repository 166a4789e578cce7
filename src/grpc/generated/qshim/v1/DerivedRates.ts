// Original file: proto/qshim/v1/stats.proto

import type { OperationRates as _qshim_v1_OperationRates, OperationRates__Output as _qshim_v1_OperationRates__Output } from '../../qshim/v1/OperationRates.ts';

export interface DerivedRates {
  'intervalMs'?: (number | string);
  'read'?: (_qshim_v1_OperationRates | null);
  'write'?: (_qshim_v1_OperationRates | null);
  'flush'?: (_qshim_v1_OperationRates | null);
  'discard'?: (_qshim_v1_OperationRates | null);
}

export interface DerivedRates__Output {
  'intervalMs': (number);
  'read': (_qshim_v1_OperationRates__Output | null);
  'write': (_qshim_v1_OperationRates__Output | null);
  'flush': (_qshim_v1_OperationRates__Output | null);
  'discard': (_qshim_v1_OperationRates__Output | null);
}
