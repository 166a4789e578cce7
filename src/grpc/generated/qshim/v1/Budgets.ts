// Original file: proto/qshim/v1/budgets.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { Budget as _qshim_v1_Budget, Budget__Output as _qshim_v1_Budget__Output } from '../../qshim/v1/Budget.ts';
import type { DeleteBudgetRequest as _qshim_v1_DeleteBudgetRequest, DeleteBudgetRequest__Output as _qshim_v1_DeleteBudgetRequest__Output } from '../../qshim/v1/DeleteBudgetRequest.ts';
import type { DeleteBudgetResponse as _qshim_v1_DeleteBudgetResponse, DeleteBudgetResponse__Output as _qshim_v1_DeleteBudgetResponse__Output } from '../../qshim/v1/DeleteBudgetResponse.ts';
import type { GetBudgetRequest as _qshim_v1_GetBudgetRequest, GetBudgetRequest__Output as _qshim_v1_GetBudgetRequest__Output } from '../../qshim/v1/GetBudgetRequest.ts';
import type { ListBudgetsRequest as _qshim_v1_ListBudgetsRequest, ListBudgetsRequest__Output as _qshim_v1_ListBudgetsRequest__Output } from '../../qshim/v1/ListBudgetsRequest.ts';
import type { ListBudgetsResponse as _qshim_v1_ListBudgetsResponse, ListBudgetsResponse__Output as _qshim_v1_ListBudgetsResponse__Output } from '../../qshim/v1/ListBudgetsResponse.ts';
import type { SetBudgetRequest as _qshim_v1_SetBudgetRequest, SetBudgetRequest__Output as _qshim_v1_SetBudgetRequest__Output } from '../../qshim/v1/SetBudgetRequest.ts';

export interface BudgetsClient extends grpc.Client {
  Delete(argument: _qshim_v1_DeleteBudgetRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _qshim_v1_DeleteBudgetRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _qshim_v1_DeleteBudgetRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _qshim_v1_DeleteBudgetRequest, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteBudgetRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteBudgetRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteBudgetRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteBudgetRequest, callback: grpc.requestCallback<_qshim_v1_DeleteBudgetResponse__Output>): grpc.ClientUnaryCall;
  
  Get(argument: _qshim_v1_GetBudgetRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetBudgetRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetBudgetRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetBudgetRequest, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetBudgetRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetBudgetRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetBudgetRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetBudgetRequest, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  
  List(argument: _qshim_v1_ListBudgetsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListBudgetsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListBudgetsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListBudgetsRequest, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListBudgetsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListBudgetsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListBudgetsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListBudgetsRequest, callback: grpc.requestCallback<_qshim_v1_ListBudgetsResponse__Output>): grpc.ClientUnaryCall;
  
  Set(argument: _qshim_v1_SetBudgetRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  Set(argument: _qshim_v1_SetBudgetRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  Set(argument: _qshim_v1_SetBudgetRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  Set(argument: _qshim_v1_SetBudgetRequest, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  set(argument: _qshim_v1_SetBudgetRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  set(argument: _qshim_v1_SetBudgetRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  set(argument: _qshim_v1_SetBudgetRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  set(argument: _qshim_v1_SetBudgetRequest, callback: grpc.requestCallback<_qshim_v1_Budget__Output>): grpc.ClientUnaryCall;
  
}

export interface BudgetsHandlers extends grpc.UntypedServiceImplementation {
  Delete: grpc.handleUnaryCall<_qshim_v1_DeleteBudgetRequest__Output, _qshim_v1_DeleteBudgetResponse>;
  
  Get: grpc.handleUnaryCall<_qshim_v1_GetBudgetRequest__Output, _qshim_v1_Budget>;
  
  List: grpc.handleUnaryCall<_qshim_v1_ListBudgetsRequest__Output, _qshim_v1_ListBudgetsResponse>;
  
  Set: grpc.handleUnaryCall<_qshim_v1_SetBudgetRequest__Output, _qshim_v1_Budget>;
  
}

export interface BudgetsDefinition extends grpc.ServiceDefinition {
  Delete: MethodDefinition<_qshim_v1_DeleteBudgetRequest, _qshim_v1_DeleteBudgetResponse, _qshim_v1_DeleteBudgetRequest__Output, _qshim_v1_DeleteBudgetResponse__Output>
  Get: MethodDefinition<_qshim_v1_GetBudgetRequest, _qshim_v1_Budget, _qshim_v1_GetBudgetRequest__Output, _qshim_v1_Budget__Output>
  List: MethodDefinition<_qshim_v1_ListBudgetsRequest, _qshim_v1_ListBudgetsResponse, _qshim_v1_ListBudgetsRequest__Output, _qshim_v1_ListBudgetsResponse__Output>
  Set: MethodDefinition<_qshim_v1_SetBudgetRequest, _qshim_v1_Budget, _qshim_v1_SetBudgetRequest__Output, _qshim_v1_Budget__Output>
}
