// Original file: proto/qshim/v1/volumes.proto


export interface PivotVolumeRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
}

export interface PivotVolumeRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
}
