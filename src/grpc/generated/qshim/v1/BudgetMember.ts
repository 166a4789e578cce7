// Original file: proto/qshim/v1/budgets.proto

import type { Long } from '@grpc/proto-loader';

export interface BudgetMember {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'share'?: (number);
  'iops'?: (number | string | Long);
  'bps'?: (number | string | Long);
}

export interface BudgetMember__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'share': (number);
  'iops': (number);
  'bps': (number);
}
