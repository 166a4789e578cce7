// Original file: proto/qshim/v1/sandboxes.proto


export interface RebootSandboxRequest {
  'sandboxId'?: (string);
  'gracefulTimeoutMs'?: (number);
  'force'?: (boolean);
}

export interface RebootSandboxRequest__Output {
  'sandboxId': (string);
  'gracefulTimeoutMs': (number);
  'force': (boolean);
}
