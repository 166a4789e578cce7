// Original file: proto/qshim/v1/sandboxes.proto


export interface GetSandboxRequest {
  'sandboxId'?: (string);
}

export interface GetSandboxRequest__Output {
  'sandboxId': (string);
}
