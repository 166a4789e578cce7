// Original file: proto/qshim/v1/stats.proto

import type { Long } from '@grpc/proto-loader';

export interface DirtyBitmap {
  'name'?: (string);
  'dirtyBytes'?: (number | string | Long);
  'granularity'?: (number | string | Long);
  'recording'?: (boolean);
  'busy'?: (boolean);
  'persistent'?: (boolean);
  'inconsistent'?: (boolean);
}

export interface DirtyBitmap__Output {
  'name': (string);
  'dirtyBytes': (number);
  'granularity': (number);
  'recording': (boolean);
  'busy': (boolean);
  'persistent': (boolean);
  'inconsistent': (boolean);
}
