// Original file: proto/qshim/v1/sandboxes.proto


export interface DeleteSandboxRequest {
  'sandboxId'?: (string);
  'force'?: (boolean);
}

export interface DeleteSandboxRequest__Output {
  'sandboxId': (string);
  'force': (boolean);
}
