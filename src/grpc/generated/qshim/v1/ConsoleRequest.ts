// Original file: proto/qshim/v1/sandboxes.proto


export interface ConsoleRequest {
  'sandboxId'?: (string);
  'follow'?: (boolean);
}

export interface ConsoleRequest__Output {
  'sandboxId': (string);
  'follow': (boolean);
}
