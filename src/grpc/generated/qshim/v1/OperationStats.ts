// Original file: proto/qshim/v1/stats.proto

import type { LatencyHistogram as _qshim_v1_LatencyHistogram, LatencyHistogram__Output as _qshim_v1_LatencyHistogram__Output } from '../../qshim/v1/LatencyHistogram.ts';
import type { Long } from '@grpc/proto-loader';

export interface OperationStats {
  'operations'?: (number | string | Long);
  'failed'?: (number | string | Long);
  'invalid'?: (number | string | Long);
  'merged'?: (number | string | Long);
  'bytes'?: (number | string | Long);
  'timeNs'?: (number | string | Long);
  'latency'?: (_qshim_v1_LatencyHistogram | null);
  '_merged'?: "merged";
  '_bytes'?: "bytes";
}

export interface OperationStats__Output {
  'operations': (number);
  'failed': (number);
  'invalid': (number);
  'merged'?: (number);
  'bytes'?: (number);
  'timeNs': (number);
  'latency': (_qshim_v1_LatencyHistogram__Output | null);
  '_merged'?: "merged";
  '_bytes'?: "bytes";
}
