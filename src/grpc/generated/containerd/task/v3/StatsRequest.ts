// Original file: proto/containerd/task.proto


export interface StatsRequest {
  'id'?: (string);
}

export interface StatsRequest__Output {
  'id': (string);
}
