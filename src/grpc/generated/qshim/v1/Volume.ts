// Original file: proto/qshim/v1/volumes.proto

import type { VolumeSpec as _qshim_v1_VolumeSpec, VolumeSpec__Output as _qshim_v1_VolumeSpec__Output } from '../../qshim/v1/VolumeSpec.ts';
import type { VolumeState as _qshim_v1_VolumeState, VolumeState__Output as _qshim_v1_VolumeState__Output } from '../../qshim/v1/VolumeState.ts';
import type { Cause as _qshim_v1_Cause, Cause__Output as _qshim_v1_Cause__Output } from '../../qshim/v1/Cause.ts';
import type { AioMode as _qshim_v1_AioMode, AioMode__Output as _qshim_v1_AioMode__Output } from '../../qshim/v1/AioMode.ts';
import type { Timing as _qshim_v1_Timing, Timing__Output as _qshim_v1_Timing__Output } from '../../qshim/v1/Timing.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { VolumeHealth as _qshim_v1_VolumeHealth, VolumeHealth__Output as _qshim_v1_VolumeHealth__Output } from '../../qshim/v1/VolumeHealth.ts';
import type { EncryptionStatus as _qshim_v1_EncryptionStatus, EncryptionStatus__Output as _qshim_v1_EncryptionStatus__Output } from '../../qshim/v1/EncryptionStatus.ts';
import type { Job as _qshim_v1_Job, Job__Output as _qshim_v1_Job__Output } from '../../qshim/v1/Job.ts';
import type { InterruptMode as _qshim_v1_InterruptMode, InterruptMode__Output as _qshim_v1_InterruptMode__Output } from '../../qshim/v1/InterruptMode.ts';
import type { Operation as _qshim_v1_Operation, Operation__Output as _qshim_v1_Operation__Output } from '../../qshim/v1/Operation.ts';
import type { IoLimits as _qshim_v1_IoLimits, IoLimits__Output as _qshim_v1_IoLimits__Output } from '../../qshim/v1/IoLimits.ts';
import type { Lease as _qshim_v1_Lease, Lease__Output as _qshim_v1_Lease__Output } from '../../qshim/v1/Lease.ts';
import type { Long } from '@grpc/proto-loader';

export interface Volume {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'generation'?: (number | string | Long);
  'spec'?: (_qshim_v1_VolumeSpec | null);
  'state'?: (_qshim_v1_VolumeState);
  'cause'?: (_qshim_v1_Cause | null);
  'serial'?: (string);
  'pciPath'?: (string);
  'guestPciAddress'?: (string);
  'guestDevice'?: (string);
  'sizeBytes'?: (number | string | Long);
  'aio'?: (_qshim_v1_AioMode);
  'evidence'?: (string)[];
  'timings'?: (_qshim_v1_Timing)[];
  'pendingAt'?: (_google_protobuf_Timestamp | null);
  'attachedAt'?: (_google_protobuf_Timestamp | null);
  'detachingAt'?: (_google_protobuf_Timestamp | null);
  'removedAt'?: (_google_protobuf_Timestamp | null);
  'formatted'?: (boolean);
  'health'?: (_qshim_v1_VolumeHealth | null);
  'encryption'?: (_qshim_v1_EncryptionStatus | null);
  'job'?: (_qshim_v1_Job | null);
  'interrupts'?: (_qshim_v1_InterruptMode);
  'iothreads'?: (string)[];
  'resolvedSource'?: (string);
  'operation'?: (_qshim_v1_Operation | null);
  'limits'?: (_qshim_v1_IoLimits | null);
  'lease'?: (_qshim_v1_Lease | null);
}

export interface Volume__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'generation': (number);
  'spec': (_qshim_v1_VolumeSpec__Output | null);
  'state': (_qshim_v1_VolumeState__Output);
  'cause': (_qshim_v1_Cause__Output | null);
  'serial': (string);
  'pciPath': (string);
  'guestPciAddress': (string);
  'guestDevice': (string);
  'sizeBytes': (number);
  'aio': (_qshim_v1_AioMode__Output);
  'evidence': (string)[];
  'timings': (_qshim_v1_Timing__Output)[];
  'pendingAt': (_google_protobuf_Timestamp__Output | null);
  'attachedAt': (_google_protobuf_Timestamp__Output | null);
  'detachingAt': (_google_protobuf_Timestamp__Output | null);
  'removedAt': (_google_protobuf_Timestamp__Output | null);
  'formatted': (boolean);
  'health': (_qshim_v1_VolumeHealth__Output | null);
  'encryption': (_qshim_v1_EncryptionStatus__Output | null);
  'job': (_qshim_v1_Job__Output | null);
  'interrupts': (_qshim_v1_InterruptMode__Output);
  'iothreads': (string)[];
  'resolvedSource': (string);
  'operation': (_qshim_v1_Operation__Output | null);
  'limits': (_qshim_v1_IoLimits__Output | null);
  'lease': (_qshim_v1_Lease__Output | null);
}
