// Original file: proto/containerd/task.proto


export interface WaitRequest {
  'id'?: (string);
  'execId'?: (string);
}

export interface WaitRequest__Output {
  'id': (string);
  'execId': (string);
}
