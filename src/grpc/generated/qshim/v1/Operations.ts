// Original file: proto/qshim/v1/operations.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { CancelOperationRequest as _qshim_v1_CancelOperationRequest, CancelOperationRequest__Output as _qshim_v1_CancelOperationRequest__Output } from '../../qshim/v1/CancelOperationRequest.ts';
import type { GetOperationRequest as _qshim_v1_GetOperationRequest, GetOperationRequest__Output as _qshim_v1_GetOperationRequest__Output } from '../../qshim/v1/GetOperationRequest.ts';
import type { ListOperationsRequest as _qshim_v1_ListOperationsRequest, ListOperationsRequest__Output as _qshim_v1_ListOperationsRequest__Output } from '../../qshim/v1/ListOperationsRequest.ts';
import type { ListOperationsResponse as _qshim_v1_ListOperationsResponse, ListOperationsResponse__Output as _qshim_v1_ListOperationsResponse__Output } from '../../qshim/v1/ListOperationsResponse.ts';
import type { Operation as _qshim_v1_Operation, Operation__Output as _qshim_v1_Operation__Output } from '../../qshim/v1/Operation.ts';
import type { WatchOperationsRequest as _qshim_v1_WatchOperationsRequest, WatchOperationsRequest__Output as _qshim_v1_WatchOperationsRequest__Output } from '../../qshim/v1/WatchOperationsRequest.ts';

export interface OperationsClient extends grpc.Client {
  Cancel(argument: _qshim_v1_CancelOperationRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Cancel(argument: _qshim_v1_CancelOperationRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Cancel(argument: _qshim_v1_CancelOperationRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Cancel(argument: _qshim_v1_CancelOperationRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  cancel(argument: _qshim_v1_CancelOperationRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  cancel(argument: _qshim_v1_CancelOperationRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  cancel(argument: _qshim_v1_CancelOperationRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  cancel(argument: _qshim_v1_CancelOperationRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  
  Get(argument: _qshim_v1_GetOperationRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetOperationRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetOperationRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetOperationRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetOperationRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetOperationRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetOperationRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetOperationRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  
  List(argument: _qshim_v1_ListOperationsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListOperationsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListOperationsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListOperationsRequest, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListOperationsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListOperationsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListOperationsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListOperationsRequest, callback: grpc.requestCallback<_qshim_v1_ListOperationsResponse__Output>): grpc.ClientUnaryCall;
  
  Watch(argument: _qshim_v1_WatchOperationsRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Operation__Output>;
  Watch(argument: _qshim_v1_WatchOperationsRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Operation__Output>;
  watch(argument: _qshim_v1_WatchOperationsRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Operation__Output>;
  watch(argument: _qshim_v1_WatchOperationsRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Operation__Output>;
  
}

export interface OperationsHandlers extends grpc.UntypedServiceImplementation {
  Cancel: grpc.handleUnaryCall<_qshim_v1_CancelOperationRequest__Output, _qshim_v1_Operation>;
  
  Get: grpc.handleUnaryCall<_qshim_v1_GetOperationRequest__Output, _qshim_v1_Operation>;
  
  List: grpc.handleUnaryCall<_qshim_v1_ListOperationsRequest__Output, _qshim_v1_ListOperationsResponse>;
  
  Watch: grpc.handleServerStreamingCall<_qshim_v1_WatchOperationsRequest__Output, _qshim_v1_Operation>;
  
}

export interface OperationsDefinition extends grpc.ServiceDefinition {
  Cancel: MethodDefinition<_qshim_v1_CancelOperationRequest, _qshim_v1_Operation, _qshim_v1_CancelOperationRequest__Output, _qshim_v1_Operation__Output>
  Get: MethodDefinition<_qshim_v1_GetOperationRequest, _qshim_v1_Operation, _qshim_v1_GetOperationRequest__Output, _qshim_v1_Operation__Output>
  List: MethodDefinition<_qshim_v1_ListOperationsRequest, _qshim_v1_ListOperationsResponse, _qshim_v1_ListOperationsRequest__Output, _qshim_v1_ListOperationsResponse__Output>
  Watch: MethodDefinition<_qshim_v1_WatchOperationsRequest, _qshim_v1_Operation, _qshim_v1_WatchOperationsRequest__Output, _qshim_v1_Operation__Output>
}
