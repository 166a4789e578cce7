// Original file: proto/containerd/sandbox.proto


export interface ControllerUpdateResponse {
}

export interface ControllerUpdateResponse__Output {
}
