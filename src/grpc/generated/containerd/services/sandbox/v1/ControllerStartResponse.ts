// Original file: proto/containerd/sandbox.proto

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../../../google/protobuf/Timestamp.ts';

export interface ControllerStartResponse {
  'sandboxId'?: (string);
  'pid'?: (number);
  'createdAt'?: (_google_protobuf_Timestamp | null);
  'labels'?: ({[key: string]: string});
  'address'?: (string);
  'version'?: (number);
}

export interface ControllerStartResponse__Output {
  'sandboxId': (string);
  'pid': (number);
  'createdAt': (_google_protobuf_Timestamp__Output | null);
  'labels': ({[key: string]: string});
  'address': (string);
  'version': (number);
}
