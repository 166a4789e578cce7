// Original file: proto/containerd/sandbox.proto


export interface ControllerStatusRequest {
  'sandboxId'?: (string);
  'verbose'?: (boolean);
  'sandboxer'?: (string);
}

export interface ControllerStatusRequest__Output {
  'sandboxId': (string);
  'verbose': (boolean);
  'sandboxer': (string);
}
