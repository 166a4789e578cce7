// Original file: proto/qshim/v1/budgets.proto


export interface GetBudgetRequest {
  'name'?: (string);
}

export interface GetBudgetRequest__Output {
  'name': (string);
}
