// Original file: proto/qshim/v1/sandboxes.proto


export interface StopSandboxRequest {
  'sandboxId'?: (string);
  'gracefulTimeoutMs'?: (number);
  'force'?: (boolean);
}

export interface StopSandboxRequest__Output {
  'sandboxId': (string);
  'gracefulTimeoutMs': (number);
  'force': (boolean);
}
