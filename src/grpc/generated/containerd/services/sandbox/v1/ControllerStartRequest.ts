// Original file: proto/containerd/sandbox.proto


export interface ControllerStartRequest {
  'sandboxId'?: (string);
  'sandboxer'?: (string);
}

export interface ControllerStartRequest__Output {
  'sandboxId': (string);
  'sandboxer': (string);
}
