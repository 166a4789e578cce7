// Original file: proto/qshim/v1/volumes.proto

import type { OperationState as _qshim_v1_OperationState, OperationState__Output as _qshim_v1_OperationState__Output } from '../../qshim/v1/OperationState.ts';
import type { Problem as _qshim_v1_Problem, Problem__Output as _qshim_v1_Problem__Output } from '../../qshim/v1/Problem.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Long } from '@grpc/proto-loader';

export interface Operation {
  'operationId'?: (string);
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'generation'?: (number | string | Long);
  'kind'?: (string);
  'state'?: (_qshim_v1_OperationState);
  'phase'?: (string);
  'current'?: (number | string | Long);
  'total'?: (number | string | Long);
  'cancellable'?: (boolean);
  'cancelAsked'?: (boolean);
  'problem'?: (_qshim_v1_Problem | null);
  'startedAt'?: (_google_protobuf_Timestamp | null);
  'endedAt'?: (_google_protobuf_Timestamp | null);
}

export interface Operation__Output {
  'operationId': (string);
  'sandboxId': (string);
  'volumeId': (string);
  'generation': (number);
  'kind': (string);
  'state': (_qshim_v1_OperationState__Output);
  'phase': (string);
  'current': (number);
  'total': (number);
  'cancellable': (boolean);
  'cancelAsked': (boolean);
  'problem': (_qshim_v1_Problem__Output | null);
  'startedAt': (_google_protobuf_Timestamp__Output | null);
  'endedAt': (_google_protobuf_Timestamp__Output | null);
}
