// Original file: proto/containerd/task.proto


export interface StartRequest {
  'id'?: (string);
  'execId'?: (string);
}

export interface StartRequest__Output {
  'id': (string);
  'execId': (string);
}
