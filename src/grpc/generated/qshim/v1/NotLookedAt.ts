// Original file: proto/qshim/v1/stats.proto


export interface NotLookedAt {
  'sandboxId'?: (string);
  'reason'?: (string);
  'message'?: (string);
}

export interface NotLookedAt__Output {
  'sandboxId': (string);
  'reason': (string);
  'message': (string);
}
