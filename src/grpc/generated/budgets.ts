import type * as grpc from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';

import type { Budget as _qshim_v1_Budget, Budget__Output as _qshim_v1_Budget__Output } from './qshim/v1/Budget.ts';
import type { BudgetMember as _qshim_v1_BudgetMember, BudgetMember__Output as _qshim_v1_BudgetMember__Output } from './qshim/v1/BudgetMember.ts';
import type { BudgetsClient as _qshim_v1_BudgetsClient, BudgetsDefinition as _qshim_v1_BudgetsDefinition } from './qshim/v1/Budgets.ts';
import type { DeleteBudgetRequest as _qshim_v1_DeleteBudgetRequest, DeleteBudgetRequest__Output as _qshim_v1_DeleteBudgetRequest__Output } from './qshim/v1/DeleteBudgetRequest.ts';
import type { DeleteBudgetResponse as _qshim_v1_DeleteBudgetResponse, DeleteBudgetResponse__Output as _qshim_v1_DeleteBudgetResponse__Output } from './qshim/v1/DeleteBudgetResponse.ts';
import type { GetBudgetRequest as _qshim_v1_GetBudgetRequest, GetBudgetRequest__Output as _qshim_v1_GetBudgetRequest__Output } from './qshim/v1/GetBudgetRequest.ts';
import type { ListBudgetsRequest as _qshim_v1_ListBudgetsRequest, ListBudgetsRequest__Output as _qshim_v1_ListBudgetsRequest__Output } from './qshim/v1/ListBudgetsRequest.ts';
import type { ListBudgetsResponse as _qshim_v1_ListBudgetsResponse, ListBudgetsResponse__Output as _qshim_v1_ListBudgetsResponse__Output } from './qshim/v1/ListBudgetsResponse.ts';
import type { SetBudgetRequest as _qshim_v1_SetBudgetRequest, SetBudgetRequest__Output as _qshim_v1_SetBudgetRequest__Output } from './qshim/v1/SetBudgetRequest.ts';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  qshim: {
    v1: {
      Budget: MessageTypeDefinition<_qshim_v1_Budget, _qshim_v1_Budget__Output>
      BudgetMember: MessageTypeDefinition<_qshim_v1_BudgetMember, _qshim_v1_BudgetMember__Output>
      Budgets: SubtypeConstructor<typeof grpc.Client, _qshim_v1_BudgetsClient> & { service: _qshim_v1_BudgetsDefinition }
      DeleteBudgetRequest: MessageTypeDefinition<_qshim_v1_DeleteBudgetRequest, _qshim_v1_DeleteBudgetRequest__Output>
      DeleteBudgetResponse: MessageTypeDefinition<_qshim_v1_DeleteBudgetResponse, _qshim_v1_DeleteBudgetResponse__Output>
      GetBudgetRequest: MessageTypeDefinition<_qshim_v1_GetBudgetRequest, _qshim_v1_GetBudgetRequest__Output>
      ListBudgetsRequest: MessageTypeDefinition<_qshim_v1_ListBudgetsRequest, _qshim_v1_ListBudgetsRequest__Output>
      ListBudgetsResponse: MessageTypeDefinition<_qshim_v1_ListBudgetsResponse, _qshim_v1_ListBudgetsResponse__Output>
      SetBudgetRequest: MessageTypeDefinition<_qshim_v1_SetBudgetRequest, _qshim_v1_SetBudgetRequest__Output>
    }
  }
}

