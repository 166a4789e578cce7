// Original file: proto/qshim/v1/sandboxes.proto


export interface StartSandboxRequest {
  'sandboxId'?: (string);
}

export interface StartSandboxRequest__Output {
  'sandboxId': (string);
}
