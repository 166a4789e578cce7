// Original file: proto/containerd/task.proto


export interface PidsRequest {
  'id'?: (string);
}

export interface PidsRequest__Output {
  'id': (string);
}
