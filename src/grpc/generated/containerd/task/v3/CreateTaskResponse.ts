// Original file: proto/containerd/task.proto


export interface CreateTaskResponse {
  'pid'?: (number);
}

export interface CreateTaskResponse__Output {
  'pid': (number);
}
