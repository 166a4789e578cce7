// Original file: proto/qshim/v1/sandboxes.proto


export interface DeleteSandboxResponse {
  'notFound'?: (boolean);
}

export interface DeleteSandboxResponse__Output {
  'notFound': (boolean);
}
