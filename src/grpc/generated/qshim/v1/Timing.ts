// Original file: proto/qshim/v1/common.proto


export interface Timing {
  'phase'?: (string);
  'milliseconds'?: (number | string);
}

export interface Timing__Output {
  'phase': (string);
  'milliseconds': (number);
}
