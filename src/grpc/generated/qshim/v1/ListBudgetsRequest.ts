// Original file: proto/qshim/v1/budgets.proto


export interface ListBudgetsRequest {
}

export interface ListBudgetsRequest__Output {
}
