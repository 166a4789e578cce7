// Original file: proto/qshim/v1/volumes.proto


export interface AttachedVolume {
  'sandboxId'?: (string);
  'volumeId'?: (string);
}

export interface AttachedVolume__Output {
  'sandboxId': (string);
  'volumeId': (string);
}
