// Original file: proto/qshim/v1/stats.proto

import type { VolumeState as _qshim_v1_VolumeState, VolumeState__Output as _qshim_v1_VolumeState__Output } from '../../qshim/v1/VolumeState.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { VolumeHealth as _qshim_v1_VolumeHealth, VolumeHealth__Output as _qshim_v1_VolumeHealth__Output } from '../../qshim/v1/VolumeHealth.ts';
import type { OperationStats as _qshim_v1_OperationStats, OperationStats__Output as _qshim_v1_OperationStats__Output } from '../../qshim/v1/OperationStats.ts';
import type { DerivedRates as _qshim_v1_DerivedRates, DerivedRates__Output as _qshim_v1_DerivedRates__Output } from '../../qshim/v1/DerivedRates.ts';
import type { ThrottleState as _qshim_v1_ThrottleState, ThrottleState__Output as _qshim_v1_ThrottleState__Output } from '../../qshim/v1/ThrottleState.ts';
import type { DirtyBitmap as _qshim_v1_DirtyBitmap, DirtyBitmap__Output as _qshim_v1_DirtyBitmap__Output } from '../../qshim/v1/DirtyBitmap.ts';
import type { Long } from '@grpc/proto-loader';

export interface VolumeStats {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'generation'?: (number | string | Long);
  'state'?: (_qshim_v1_VolumeState);
  'lookedAt'?: (_google_protobuf_Timestamp | null);
  'health'?: (_qshim_v1_VolumeHealth | null);
  'read'?: (_qshim_v1_OperationStats | null);
  'write'?: (_qshim_v1_OperationStats | null);
  'flush'?: (_qshim_v1_OperationStats | null);
  'discard'?: (_qshim_v1_OperationStats | null);
  'idleNs'?: (number | string | Long);
  'writtenTo'?: (number | string | Long);
  'sourceWrittenTo'?: (number | string | Long);
  'accountsFailed'?: (boolean);
  'derived'?: (_qshim_v1_DerivedRates | null);
  'detailsLookedAt'?: (_google_protobuf_Timestamp | null);
  'throttle'?: (_qshim_v1_ThrottleState | null);
  'bitmaps'?: (_qshim_v1_DirtyBitmap)[];
  'ioStatus'?: (string);
  '_idleNs'?: "idleNs";
  '_writtenTo'?: "writtenTo";
  '_sourceWrittenTo'?: "sourceWrittenTo";
  '_accountsFailed'?: "accountsFailed";
  '_ioStatus'?: "ioStatus";
}

export interface VolumeStats__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'generation': (number);
  'state': (_qshim_v1_VolumeState__Output);
  'lookedAt': (_google_protobuf_Timestamp__Output | null);
  'health': (_qshim_v1_VolumeHealth__Output | null);
  'read': (_qshim_v1_OperationStats__Output | null);
  'write': (_qshim_v1_OperationStats__Output | null);
  'flush': (_qshim_v1_OperationStats__Output | null);
  'discard': (_qshim_v1_OperationStats__Output | null);
  'idleNs'?: (number);
  'writtenTo'?: (number);
  'sourceWrittenTo'?: (number);
  'accountsFailed'?: (boolean);
  'derived': (_qshim_v1_DerivedRates__Output | null);
  'detailsLookedAt': (_google_protobuf_Timestamp__Output | null);
  'throttle': (_qshim_v1_ThrottleState__Output | null);
  'bitmaps': (_qshim_v1_DirtyBitmap__Output)[];
  'ioStatus'?: (string);
  '_idleNs'?: "idleNs";
  '_writtenTo'?: "writtenTo";
  '_sourceWrittenTo'?: "sourceWrittenTo";
  '_accountsFailed'?: "accountsFailed";
  '_ioStatus'?: "ioStatus";
}
