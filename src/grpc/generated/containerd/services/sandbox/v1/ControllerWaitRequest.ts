// Original file: proto/containerd/sandbox.proto


export interface ControllerWaitRequest {
  'sandboxId'?: (string);
  'sandboxer'?: (string);
}

export interface ControllerWaitRequest__Output {
  'sandboxId': (string);
  'sandboxer': (string);
}
