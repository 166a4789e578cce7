// Original file: proto/containerd/task.proto


export interface ShutdownRequest {
  'id'?: (string);
  'now'?: (boolean);
}

export interface ShutdownRequest__Output {
  'id': (string);
  'now': (boolean);
}
