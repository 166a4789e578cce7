// Original file: proto/qshim/v1/sandboxes.proto


export interface TerminalSize {
  'rows'?: (number);
  'columns'?: (number);
}

export interface TerminalSize__Output {
  'rows': (number);
  'columns': (number);
}
