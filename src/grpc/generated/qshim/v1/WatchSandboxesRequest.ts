// Original file: proto/qshim/v1/sandboxes.proto


export interface WatchSandboxesRequest {
  'sandboxId'?: (string);
}

export interface WatchSandboxesRequest__Output {
  'sandboxId': (string);
}
