// Original file: proto/qshim/v1/sandboxes.proto


export interface ResumeSandboxRequest {
  'sandboxId'?: (string);
}

export interface ResumeSandboxRequest__Output {
  'sandboxId': (string);
}
