// Original file: proto/qshim/v1/volumes.proto


export interface Problem {
  'code'?: (string);
  'reason'?: (string);
  'message'?: (string);
  'metadata'?: ({[key: string]: string});
}

export interface Problem__Output {
  'code': (string);
  'reason': (string);
  'message': (string);
  'metadata': ({[key: string]: string});
}
