// Original file: proto/qshim/v1/volumes.proto


export interface ListStaleCopiesRequest {
}

export interface ListStaleCopiesRequest__Output {
}
