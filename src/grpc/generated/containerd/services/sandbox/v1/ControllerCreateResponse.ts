// Original file: proto/containerd/sandbox.proto


export interface ControllerCreateResponse {
  'sandboxId'?: (string);
}

export interface ControllerCreateResponse__Output {
  'sandboxId': (string);
}
