// Original file: proto/qshim/v1/volumes.proto

import type { VolumeSpec as _qshim_v1_VolumeSpec, VolumeSpec__Output as _qshim_v1_VolumeSpec__Output } from '../../qshim/v1/VolumeSpec.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Long } from '@grpc/proto-loader';

export interface VolumeToAttach {
  'volumeId'?: (string);
  'spec'?: (_qshim_v1_VolumeSpec | null);
  'leaseMs'?: (number | string | Long);
  'leaseUntil'?: (_google_protobuf_Timestamp | null);
}

export interface VolumeToAttach__Output {
  'volumeId': (string);
  'spec': (_qshim_v1_VolumeSpec__Output | null);
  'leaseMs': (number);
  'leaseUntil': (_google_protobuf_Timestamp__Output | null);
}
