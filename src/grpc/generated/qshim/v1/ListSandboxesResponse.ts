// Original file: proto/qshim/v1/sandboxes.proto

import type { Sandbox as _qshim_v1_Sandbox, Sandbox__Output as _qshim_v1_Sandbox__Output } from '../../qshim/v1/Sandbox.ts';

export interface ListSandboxesResponse {
  'sandboxes'?: (_qshim_v1_Sandbox)[];
}

export interface ListSandboxesResponse__Output {
  'sandboxes': (_qshim_v1_Sandbox__Output)[];
}
