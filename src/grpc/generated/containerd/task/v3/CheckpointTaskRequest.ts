// Original file: proto/containerd/task.proto


export interface CheckpointTaskRequest {
  'id'?: (string);
}

export interface CheckpointTaskRequest__Output {
  'id': (string);
}
