// Original file: proto/qshim/v1/budgets.proto

import type { Long } from '@grpc/proto-loader';

export interface SetBudgetRequest {
  'name'?: (string);
  'iops'?: (number | string | Long);
  'bps'?: (number | string | Long);
}

export interface SetBudgetRequest__Output {
  'name': (string);
  'iops': (number);
  'bps': (number);
}
