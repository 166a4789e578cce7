// Original file: proto/qshim/v1/sandboxes.proto


export interface ListSandboxesRequest {
  'labels'?: ({[key: string]: string});
}

export interface ListSandboxesRequest__Output {
  'labels': ({[key: string]: string});
}
