// Original file: proto/qshim/v1/sandboxes.proto


export interface ExecStreamExited {
  'exitCode'?: (number);
}

export interface ExecStreamExited__Output {
  'exitCode': (number);
}
