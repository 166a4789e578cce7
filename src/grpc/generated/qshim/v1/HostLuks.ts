// Original file: proto/qshim/v1/volumes.proto

import type { KeyReference as _qshim_v1_KeyReference, KeyReference__Output as _qshim_v1_KeyReference__Output } from '../../qshim/v1/KeyReference.ts';
import type { Format as _qshim_v1_Format, Format__Output as _qshim_v1_Format__Output } from '../../qshim/v1/Format.ts';
import type { Long } from '@grpc/proto-loader';

export interface HostLuks {
  'key'?: (_qshim_v1_KeyReference | null);
  'format'?: (_qshim_v1_Format);
  'sizeBytes'?: (number | string | Long);
  'cipher'?: (string);
  'hash'?: (string);
  'iterationMs'?: (number);
  'uuid'?: (string);
}

export interface HostLuks__Output {
  'key': (_qshim_v1_KeyReference__Output | null);
  'format': (_qshim_v1_Format__Output);
  'sizeBytes': (number);
  'cipher': (string);
  'hash': (string);
  'iterationMs': (number);
  'uuid': (string);
}
