// Original file: proto/qshim/v1/volumes.proto


export interface PlannedStep {
  'kind'?: (string);
  'command'?: (string);
  'arguments'?: (string);
  'undoCommand'?: (string);
  'undoArguments'?: (string);
}

export interface PlannedStep__Output {
  'kind': (string);
  'command': (string);
  'arguments': (string);
  'undoCommand': (string);
  'undoArguments': (string);
}
