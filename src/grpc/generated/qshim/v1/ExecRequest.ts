// Original file: proto/qshim/v1/sandboxes.proto


export interface ExecRequest {
  'sandboxId'?: (string);
  'path'?: (string);
  'arguments'?: (string)[];
  'environment'?: (string)[];
  'standardInput'?: (Buffer | Uint8Array | string);
  'timeoutMs'?: (number);
}

export interface ExecRequest__Output {
  'sandboxId': (string);
  'path': (string);
  'arguments': (string)[];
  'environment': (string)[];
  'standardInput': (Buffer);
  'timeoutMs': (number);
}
