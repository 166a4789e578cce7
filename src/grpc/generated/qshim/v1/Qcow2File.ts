// Original file: proto/qshim/v1/volumes.proto


export interface Qcow2File {
  'path'?: (string);
}

export interface Qcow2File__Output {
  'path': (string);
}
