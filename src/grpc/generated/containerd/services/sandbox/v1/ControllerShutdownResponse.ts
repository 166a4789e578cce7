// Original file: proto/containerd/sandbox.proto


export interface ControllerShutdownResponse {
}

export interface ControllerShutdownResponse__Output {
}
