// Original file: proto/qshim/v1/sandboxes.proto


export interface ConsoleChunk {
  'data'?: (Buffer | Uint8Array | string);
}

export interface ConsoleChunk__Output {
  'data': (Buffer);
}
