// Original file: proto/qshim/v1/sandboxes.proto

import type { Event as _qshim_v1_Event, Event__Output as _qshim_v1_Event__Output } from '../../qshim/v1/Event.ts';
import type { Sandbox as _qshim_v1_Sandbox, Sandbox__Output as _qshim_v1_Sandbox__Output } from '../../qshim/v1/Sandbox.ts';

export interface SandboxEvent {
  'event'?: (_qshim_v1_Event | null);
  'sandbox'?: (_qshim_v1_Sandbox | null);
}

export interface SandboxEvent__Output {
  'event': (_qshim_v1_Event__Output | null);
  'sandbox': (_qshim_v1_Sandbox__Output | null);
}
