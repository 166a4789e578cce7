// Original file: proto/qshim/v1/volumes.proto


export interface ListVolumesRequest {
  'sandboxId'?: (string);
}

export interface ListVolumesRequest__Output {
  'sandboxId': (string);
}
