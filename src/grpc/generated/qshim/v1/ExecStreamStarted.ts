// Original file: proto/qshim/v1/sandboxes.proto


export interface ExecStreamStarted {
  'pid'?: (number);
}

export interface ExecStreamStarted__Output {
  'pid': (number);
}
