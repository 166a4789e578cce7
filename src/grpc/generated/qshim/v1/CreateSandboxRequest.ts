// Original file: proto/qshim/v1/sandboxes.proto

import type { SandboxSpec as _qshim_v1_SandboxSpec, SandboxSpec__Output as _qshim_v1_SandboxSpec__Output } from '../../qshim/v1/SandboxSpec.ts';

export interface CreateSandboxRequest {
  'sandboxId'?: (string);
  'spec'?: (_qshim_v1_SandboxSpec | null);
}

export interface CreateSandboxRequest__Output {
  'sandboxId': (string);
  'spec': (_qshim_v1_SandboxSpec__Output | null);
}
