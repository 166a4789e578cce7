// Original file: proto/qshim/v1/volumes.proto

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Long } from '@grpc/proto-loader';

export interface Lease {
  'until'?: (_google_protobuf_Timestamp | null);
  'lengthMs'?: (number | string | Long);
  'warned'?: (boolean);
  'expired'?: (boolean);
  'forceAt'?: (_google_protobuf_Timestamp | null);
}

export interface Lease__Output {
  'until': (_google_protobuf_Timestamp__Output | null);
  'lengthMs': (number);
  'warned': (boolean);
  'expired': (boolean);
  'forceAt': (_google_protobuf_Timestamp__Output | null);
}
