// Original file: proto/qshim/v1/sandboxes.proto


export interface MissingWall {
  'part'?: (string);
  'reason'?: (string);
}

export interface MissingWall__Output {
  'part': (string);
  'reason': (string);
}
