// Original file: proto/qshim/v1/operations.proto


export interface GetOperationRequest {
  'sandboxId'?: (string);
  'operationId'?: (string);
}

export interface GetOperationRequest__Output {
  'sandboxId': (string);
  'operationId': (string);
}
