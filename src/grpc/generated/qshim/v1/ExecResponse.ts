// Original file: proto/qshim/v1/sandboxes.proto


export interface ExecResponse {
  'exitCode'?: (number);
  'signal'?: (number);
  'standardOutput'?: (Buffer | Uint8Array | string);
  'standardError'?: (Buffer | Uint8Array | string);
  'truncated'?: (boolean);
  'timedOut'?: (boolean);
}

export interface ExecResponse__Output {
  'exitCode': (number);
  'signal': (number);
  'standardOutput': (Buffer);
  'standardError': (Buffer);
  'truncated': (boolean);
  'timedOut': (boolean);
}
