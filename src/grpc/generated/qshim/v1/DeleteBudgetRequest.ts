// Original file: proto/qshim/v1/budgets.proto


export interface DeleteBudgetRequest {
  'name'?: (string);
}

export interface DeleteBudgetRequest__Output {
  'name': (string);
}
