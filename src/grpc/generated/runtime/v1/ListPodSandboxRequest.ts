// Original file: proto/containerd/cri.proto


export interface ListPodSandboxRequest {
}

export interface ListPodSandboxRequest__Output {
}
