// Original file: proto/qshim/v1/volumes.proto


export interface BlockDevice {
  'path'?: (string);
}

export interface BlockDevice__Output {
  'path': (string);
}
