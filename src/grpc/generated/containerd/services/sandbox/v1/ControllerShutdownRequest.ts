// Original file: proto/containerd/sandbox.proto


export interface ControllerShutdownRequest {
  'sandboxId'?: (string);
  'sandboxer'?: (string);
}

export interface ControllerShutdownRequest__Output {
  'sandboxId': (string);
  'sandboxer': (string);
}
