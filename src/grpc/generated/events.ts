import type * as grpc from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from './google/protobuf/Timestamp.ts';
import type { Cause as _qshim_v1_Cause, Cause__Output as _qshim_v1_Cause__Output } from './qshim/v1/Cause.ts';
import type { Event as _qshim_v1_Event, Event__Output as _qshim_v1_Event__Output } from './qshim/v1/Event.ts';
import type { EventsClient as _qshim_v1_EventsClient, EventsDefinition as _qshim_v1_EventsDefinition } from './qshim/v1/Events.ts';
import type { Timing as _qshim_v1_Timing, Timing__Output as _qshim_v1_Timing__Output } from './qshim/v1/Timing.ts';
import type { WatchEventsRequest as _qshim_v1_WatchEventsRequest, WatchEventsRequest__Output as _qshim_v1_WatchEventsRequest__Output } from './qshim/v1/WatchEventsRequest.ts';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  google: {
    protobuf: {
      Timestamp: MessageTypeDefinition<_google_protobuf_Timestamp, _google_protobuf_Timestamp__Output>
    }
  }
  qshim: {
    v1: {
      Cause: MessageTypeDefinition<_qshim_v1_Cause, _qshim_v1_Cause__Output>
      Event: MessageTypeDefinition<_qshim_v1_Event, _qshim_v1_Event__Output>
      Events: SubtypeConstructor<typeof grpc.Client, _qshim_v1_EventsClient> & { service: _qshim_v1_EventsDefinition }
      Timing: MessageTypeDefinition<_qshim_v1_Timing, _qshim_v1_Timing__Output>
      WatchEventsRequest: MessageTypeDefinition<_qshim_v1_WatchEventsRequest, _qshim_v1_WatchEventsRequest__Output>
    }
  }
}

