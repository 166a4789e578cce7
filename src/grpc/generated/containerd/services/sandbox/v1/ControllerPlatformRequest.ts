// Original file: proto/containerd/sandbox.proto


export interface ControllerPlatformRequest {
  'sandboxId'?: (string);
  'sandboxer'?: (string);
}

export interface ControllerPlatformRequest__Output {
  'sandboxId': (string);
  'sandboxer': (string);
}
