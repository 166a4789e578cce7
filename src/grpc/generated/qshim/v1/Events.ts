// Original file: proto/qshim/v1/events.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { Event as _qshim_v1_Event, Event__Output as _qshim_v1_Event__Output } from '../../qshim/v1/Event.ts';
import type { WatchEventsRequest as _qshim_v1_WatchEventsRequest, WatchEventsRequest__Output as _qshim_v1_WatchEventsRequest__Output } from '../../qshim/v1/WatchEventsRequest.ts';

export interface EventsClient extends grpc.Client {
  Watch(argument: _qshim_v1_WatchEventsRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Event__Output>;
  Watch(argument: _qshim_v1_WatchEventsRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Event__Output>;
  watch(argument: _qshim_v1_WatchEventsRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Event__Output>;
  watch(argument: _qshim_v1_WatchEventsRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_Event__Output>;
  
}

export interface EventsHandlers extends grpc.UntypedServiceImplementation {
  Watch: grpc.handleServerStreamingCall<_qshim_v1_WatchEventsRequest__Output, _qshim_v1_Event>;
  
}

export interface EventsDefinition extends grpc.ServiceDefinition {
  Watch: MethodDefinition<_qshim_v1_WatchEventsRequest, _qshim_v1_Event, _qshim_v1_WatchEventsRequest__Output, _qshim_v1_Event__Output>
}
