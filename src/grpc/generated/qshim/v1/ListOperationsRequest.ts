// Original file: proto/qshim/v1/operations.proto


export interface ListOperationsRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'running'?: (boolean);
}

export interface ListOperationsRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'running': (boolean);
}
