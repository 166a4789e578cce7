// Original file: proto/qshim/v1/volumes.proto


export interface DetachManyRequest {
  'sandboxId'?: (string);
  'volumeIds'?: (string)[];
  'force'?: (boolean);
  'timeoutMs'?: (number);
}

export interface DetachManyRequest__Output {
  'sandboxId': (string);
  'volumeIds': (string)[];
  'force': (boolean);
  'timeoutMs': (number);
}
