// Original file: proto/qshim/v1/volumes.proto

import type { Long } from '@grpc/proto-loader';

export interface Job {
  'type'?: (string);
  'status'?: (string);
  'current'?: (number | string | Long);
  'total'?: (number | string | Long);
}

export interface Job__Output {
  'type': (string);
  'status': (string);
  'current': (number);
  'total': (number);
}
