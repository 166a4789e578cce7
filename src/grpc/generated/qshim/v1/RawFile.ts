// Original file: proto/qshim/v1/volumes.proto


export interface RawFile {
  'path'?: (string);
}

export interface RawFile__Output {
  'path': (string);
}
