// Original file: proto/qshim/v1/volumes.proto

import type { Long } from '@grpc/proto-loader';

export interface ResizeVolumeRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'sizeBytes'?: (number | string | Long);
  'timeoutMs'?: (number);
}

export interface ResizeVolumeRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'sizeBytes': (number);
  'timeoutMs': (number);
}
