// Original file: proto/qshim/v1/stats.proto


export interface GetStatsRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'fresh'?: (boolean);
}

export interface GetStatsRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'fresh': (boolean);
}
