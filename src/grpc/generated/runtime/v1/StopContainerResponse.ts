// Original file: proto/containerd/cri.proto


export interface StopContainerResponse {
}

export interface StopContainerResponse__Output {
}
