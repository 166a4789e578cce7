// Original file: proto/qshim/v1/budgets.proto

import type { BudgetMember as _qshim_v1_BudgetMember, BudgetMember__Output as _qshim_v1_BudgetMember__Output } from '../../qshim/v1/BudgetMember.ts';
import type { Long } from '@grpc/proto-loader';

export interface Budget {
  'name'?: (string);
  'iops'?: (number | string | Long);
  'bps'?: (number | string | Long);
  'members'?: (_qshim_v1_BudgetMember)[];
}

export interface Budget__Output {
  'name': (string);
  'iops': (number);
  'bps': (number);
  'members': (_qshim_v1_BudgetMember__Output)[];
}
