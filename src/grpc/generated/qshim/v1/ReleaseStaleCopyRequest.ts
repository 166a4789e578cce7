// Original file: proto/qshim/v1/volumes.proto


export interface ReleaseStaleCopyRequest {
  'path'?: (string);
}

export interface ReleaseStaleCopyRequest__Output {
  'path': (string);
}
