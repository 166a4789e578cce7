// Original file: proto/containerd/sandbox.proto


export interface ControllerMetricsRequest {
  'sandboxId'?: (string);
  'sandboxer'?: (string);
}

export interface ControllerMetricsRequest__Output {
  'sandboxId': (string);
  'sandboxer': (string);
}
