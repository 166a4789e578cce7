// Original file: proto/containerd/cri.proto


export interface StopPodSandboxResponse {
}

export interface StopPodSandboxResponse__Output {
}
