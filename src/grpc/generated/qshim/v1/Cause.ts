// Original file: proto/qshim/v1/common.proto


export interface Cause {
  'reason'?: (string);
  'message'?: (string);
}

export interface Cause__Output {
  'reason': (string);
  'message': (string);
}
