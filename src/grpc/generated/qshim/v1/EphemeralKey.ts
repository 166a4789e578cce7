// Original file: proto/qshim/v1/volumes.proto


export interface EphemeralKey {
}

export interface EphemeralKey__Output {
}
