// Original file: proto/qshim/v1/common.proto

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Cause as _qshim_v1_Cause, Cause__Output as _qshim_v1_Cause__Output } from '../../qshim/v1/Cause.ts';
import type { Timing as _qshim_v1_Timing, Timing__Output as _qshim_v1_Timing__Output } from '../../qshim/v1/Timing.ts';
import type { Long } from '@grpc/proto-loader';

export interface Event {
  'sequence'?: (number | string | Long);
  'time'?: (_google_protobuf_Timestamp | null);
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'generation'?: (number | string | Long);
  'type'?: (string);
  'cause'?: (_qshim_v1_Cause | null);
  'timings'?: (_qshim_v1_Timing)[];
  'epoch'?: (string);
}

export interface Event__Output {
  'sequence': (number);
  'time': (_google_protobuf_Timestamp__Output | null);
  'sandboxId': (string);
  'volumeId': (string);
  'generation': (number);
  'type': (string);
  'cause': (_qshim_v1_Cause__Output | null);
  'timings': (_qshim_v1_Timing__Output)[];
  'epoch': (string);
}
