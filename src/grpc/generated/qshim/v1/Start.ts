// Original file: proto/qshim/v1/sandboxes.proto

import type { StartKind as _qshim_v1_StartKind, StartKind__Output as _qshim_v1_StartKind__Output } from '../../qshim/v1/StartKind.ts';

export interface Start {
  'kind'?: (_qshim_v1_StartKind);
  'templateId'?: (string);
  'reason'?: (string);
}

export interface Start__Output {
  'kind': (_qshim_v1_StartKind__Output);
  'templateId': (string);
  'reason': (string);
}
