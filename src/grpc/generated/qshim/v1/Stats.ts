// Original file: proto/qshim/v1/stats.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { GetStatsRequest as _qshim_v1_GetStatsRequest, GetStatsRequest__Output as _qshim_v1_GetStatsRequest__Output } from '../../qshim/v1/GetStatsRequest.ts';
import type { GetStatsResponse as _qshim_v1_GetStatsResponse, GetStatsResponse__Output as _qshim_v1_GetStatsResponse__Output } from '../../qshim/v1/GetStatsResponse.ts';
import type { WatchStatsRequest as _qshim_v1_WatchStatsRequest, WatchStatsRequest__Output as _qshim_v1_WatchStatsRequest__Output } from '../../qshim/v1/WatchStatsRequest.ts';

export interface StatsClient extends grpc.Client {
  Get(argument: _qshim_v1_GetStatsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetStatsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetStatsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetStatsRequest, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetStatsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetStatsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetStatsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetStatsRequest, callback: grpc.requestCallback<_qshim_v1_GetStatsResponse__Output>): grpc.ClientUnaryCall;
  
  Watch(argument: _qshim_v1_WatchStatsRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_GetStatsResponse__Output>;
  Watch(argument: _qshim_v1_WatchStatsRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_GetStatsResponse__Output>;
  watch(argument: _qshim_v1_WatchStatsRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_GetStatsResponse__Output>;
  watch(argument: _qshim_v1_WatchStatsRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_GetStatsResponse__Output>;
  
}

export interface StatsHandlers extends grpc.UntypedServiceImplementation {
  Get: grpc.handleUnaryCall<_qshim_v1_GetStatsRequest__Output, _qshim_v1_GetStatsResponse>;
  
  Watch: grpc.handleServerStreamingCall<_qshim_v1_WatchStatsRequest__Output, _qshim_v1_GetStatsResponse>;
  
}

export interface StatsDefinition extends grpc.ServiceDefinition {
  Get: MethodDefinition<_qshim_v1_GetStatsRequest, _qshim_v1_GetStatsResponse, _qshim_v1_GetStatsRequest__Output, _qshim_v1_GetStatsResponse__Output>
  Watch: MethodDefinition<_qshim_v1_WatchStatsRequest, _qshim_v1_GetStatsResponse, _qshim_v1_WatchStatsRequest__Output, _qshim_v1_GetStatsResponse__Output>
}
