// Original file: proto/qshim/v1/sandboxes.proto


export interface PauseSandboxRequest {
  'sandboxId'?: (string);
}

export interface PauseSandboxRequest__Output {
  'sandboxId': (string);
}
