// Original file: proto/qshim/v1/budgets.proto


export interface DeleteBudgetResponse {
  'notFound'?: (boolean);
}

export interface DeleteBudgetResponse__Output {
  'notFound': (boolean);
}
