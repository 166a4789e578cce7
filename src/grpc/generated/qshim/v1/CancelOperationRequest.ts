// Original file: proto/qshim/v1/operations.proto


export interface CancelOperationRequest {
  'sandboxId'?: (string);
  'operationId'?: (string);
}

export interface CancelOperationRequest__Output {
  'sandboxId': (string);
  'operationId': (string);
}
