// Original file: proto/containerd/sandbox.proto


export interface ControllerStopResponse {
}

export interface ControllerStopResponse__Output {
}
