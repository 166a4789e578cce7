// Original file: proto/qshim/v1/volumes.proto

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Long } from '@grpc/proto-loader';

export interface VolumeHealth {
  'failing'?: (boolean);
  'errors'?: (number | string | Long);
  'lastOperation'?: (string);
  'lastMessage'?: (string);
  'lastAction'?: (string);
  'lastNoSpace'?: (boolean);
  'lastAt'?: (_google_protobuf_Timestamp | null);
}

export interface VolumeHealth__Output {
  'failing': (boolean);
  'errors': (number);
  'lastOperation': (string);
  'lastMessage': (string);
  'lastAction': (string);
  'lastNoSpace': (boolean);
  'lastAt': (_google_protobuf_Timestamp__Output | null);
}
