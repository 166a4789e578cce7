// Original file: proto/qshim/v1/sandboxes.proto


export interface DeleteSandboxResponse {
}

export interface DeleteSandboxResponse__Output {
}
