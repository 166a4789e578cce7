// Original file: proto/qshim/v1/volumes.proto

import type { VolumeSpec as _qshim_v1_VolumeSpec, VolumeSpec__Output as _qshim_v1_VolumeSpec__Output } from '../../qshim/v1/VolumeSpec.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Long } from '@grpc/proto-loader';

export interface AttachVolumeRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'spec'?: (_qshim_v1_VolumeSpec | null);
  'timeoutMs'?: (number);
  'leaseMs'?: (number | string | Long);
  'leaseUntil'?: (_google_protobuf_Timestamp | null);
}

export interface AttachVolumeRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'spec': (_qshim_v1_VolumeSpec__Output | null);
  'timeoutMs': (number);
  'leaseMs': (number);
  'leaseUntil': (_google_protobuf_Timestamp__Output | null);
}
