// Original file: proto/qshim/v1/stats.proto

import type { Long } from '@grpc/proto-loader';

export interface LatencyHistogram {
  'boundariesNs'?: (number | string | Long)[];
  'counts'?: (number | string | Long)[];
}

export interface LatencyHistogram__Output {
  'boundariesNs': (number)[];
  'counts': (number)[];
}
