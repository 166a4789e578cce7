// Original file: proto/qshim/v1/volumes.proto


export interface KeySlots {
  'uuid'?: (string);
  'used'?: (boolean)[];
}

export interface KeySlots__Output {
  'uuid': (string);
  'used': (boolean)[];
}
