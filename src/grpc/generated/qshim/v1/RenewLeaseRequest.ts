// Original file: proto/qshim/v1/volumes.proto

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Long } from '@grpc/proto-loader';

export interface RenewLeaseRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'leaseMs'?: (number | string | Long);
  'leaseUntil'?: (_google_protobuf_Timestamp | null);
}

export interface RenewLeaseRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'leaseMs': (number);
  'leaseUntil': (_google_protobuf_Timestamp__Output | null);
}
