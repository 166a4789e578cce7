// Original file: proto/qshim/v1/volumes.proto

import type { Volume as _qshim_v1_Volume, Volume__Output as _qshim_v1_Volume__Output } from '../../qshim/v1/Volume.ts';
import type { Problem as _qshim_v1_Problem, Problem__Output as _qshim_v1_Problem__Output } from '../../qshim/v1/Problem.ts';

export interface BatchResult {
  'volumeId'?: (string);
  'volume'?: (_qshim_v1_Volume | null);
  'problem'?: (_qshim_v1_Problem | null);
}

export interface BatchResult__Output {
  'volumeId': (string);
  'volume': (_qshim_v1_Volume__Output | null);
  'problem': (_qshim_v1_Problem__Output | null);
}
