// Original file: proto/qshim/v1/volumes.proto


export interface GetVolumeRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
}

export interface GetVolumeRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
}
