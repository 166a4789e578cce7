// Original file: proto/qshim/v1/operations.proto


export interface WatchOperationsRequest {
  'sandboxId'?: (string);
  'operationId'?: (string);
}

export interface WatchOperationsRequest__Output {
  'sandboxId': (string);
  'operationId': (string);
}
