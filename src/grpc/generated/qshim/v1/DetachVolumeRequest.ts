// Original file: proto/qshim/v1/volumes.proto


export interface DetachVolumeRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'force'?: (boolean);
  'timeoutMs'?: (number);
}

export interface DetachVolumeRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'force': (boolean);
  'timeoutMs': (number);
}
