// Original file: proto/qshim/v1/volumes.proto


export interface WatchVolumesRequest {
  'sandboxId'?: (string);
}

export interface WatchVolumesRequest__Output {
  'sandboxId': (string);
}
