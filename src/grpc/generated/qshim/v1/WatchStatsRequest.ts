// Original file: proto/qshim/v1/stats.proto


export interface WatchStatsRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'periodMs'?: (number);
}

export interface WatchStatsRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'periodMs': (number);
}
