// Original file: proto/qshim/v1/volumes.proto

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Long } from '@grpc/proto-loader';

export interface StaleCopy {
  'path'?: (string);
  'currentPath'?: (string);
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'generation'?: (number | string | Long);
  'since'?: (_google_protobuf_Timestamp | null);
}

export interface StaleCopy__Output {
  'path': (string);
  'currentPath': (string);
  'sandboxId': (string);
  'volumeId': (string);
  'generation': (number);
  'since': (_google_protobuf_Timestamp__Output | null);
}
