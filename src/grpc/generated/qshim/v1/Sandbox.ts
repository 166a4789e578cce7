// Original file: proto/qshim/v1/sandboxes.proto

import type { SandboxSpec as _qshim_v1_SandboxSpec, SandboxSpec__Output as _qshim_v1_SandboxSpec__Output } from '../../qshim/v1/SandboxSpec.ts';
import type { SandboxState as _qshim_v1_SandboxState, SandboxState__Output as _qshim_v1_SandboxState__Output } from '../../qshim/v1/SandboxState.ts';
import type { Cause as _qshim_v1_Cause, Cause__Output as _qshim_v1_Cause__Output } from '../../qshim/v1/Cause.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from '../../google/protobuf/Timestamp.ts';
import type { Accelerator as _qshim_v1_Accelerator, Accelerator__Output as _qshim_v1_Accelerator__Output } from '../../qshim/v1/Accelerator.ts';
import type { Timing as _qshim_v1_Timing, Timing__Output as _qshim_v1_Timing__Output } from '../../qshim/v1/Timing.ts';
import type { Start as _qshim_v1_Start, Start__Output as _qshim_v1_Start__Output } from '../../qshim/v1/Start.ts';
import type { Capacity as _qshim_v1_Capacity, Capacity__Output as _qshim_v1_Capacity__Output } from '../../qshim/v1/Capacity.ts';
import type { Confinement as _qshim_v1_Confinement, Confinement__Output as _qshim_v1_Confinement__Output } from '../../qshim/v1/Confinement.ts';
import type { BootImages as _qshim_v1_BootImages, BootImages__Output as _qshim_v1_BootImages__Output } from '../../qshim/v1/BootImages.ts';

export interface Sandbox {
  'sandboxId'?: (string);
  'spec'?: (_qshim_v1_SandboxSpec | null);
  'state'?: (_qshim_v1_SandboxState);
  'cause'?: (_qshim_v1_Cause | null);
  'createdAt'?: (_google_protobuf_Timestamp | null);
  'accelerator'?: (_qshim_v1_Accelerator);
  'acceleratorReason'?: (string);
  'qemuVersion'?: (string);
  'qemuPid'?: (number);
  'volumeCapacity'?: (number);
  'volumesInUse'?: (number);
  'timings'?: (_qshim_v1_Timing)[];
  'agentReady'?: (boolean);
  'runState'?: (string);
  'stateDir'?: (string);
  'start'?: (_qshim_v1_Start | null);
  'capacity'?: (_qshim_v1_Capacity | null);
  'qemuUnresponsive'?: (boolean);
  'confinement'?: (_qshim_v1_Confinement | null);
  'bootImages'?: (_qshim_v1_BootImages | null);
  'guestOverBudget'?: (string);
}

export interface Sandbox__Output {
  'sandboxId': (string);
  'spec': (_qshim_v1_SandboxSpec__Output | null);
  'state': (_qshim_v1_SandboxState__Output);
  'cause': (_qshim_v1_Cause__Output | null);
  'createdAt': (_google_protobuf_Timestamp__Output | null);
  'accelerator': (_qshim_v1_Accelerator__Output);
  'acceleratorReason': (string);
  'qemuVersion': (string);
  'qemuPid': (number);
  'volumeCapacity': (number);
  'volumesInUse': (number);
  'timings': (_qshim_v1_Timing__Output)[];
  'agentReady': (boolean);
  'runState': (string);
  'stateDir': (string);
  'start': (_qshim_v1_Start__Output | null);
  'capacity': (_qshim_v1_Capacity__Output | null);
  'qemuUnresponsive': (boolean);
  'confinement': (_qshim_v1_Confinement__Output | null);
  'bootImages': (_qshim_v1_BootImages__Output | null);
  'guestOverBudget': (string);
}
