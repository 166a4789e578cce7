// Original file: proto/qshim/v1/budgets.proto

import type { Budget as _qshim_v1_Budget, Budget__Output as _qshim_v1_Budget__Output } from '../../qshim/v1/Budget.ts';

export interface ListBudgetsResponse {
  'budgets'?: (_qshim_v1_Budget)[];
}

export interface ListBudgetsResponse__Output {
  'budgets': (_qshim_v1_Budget__Output)[];
}
