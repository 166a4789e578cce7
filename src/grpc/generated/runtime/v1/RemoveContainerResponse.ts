// Original file: proto/containerd/cri.proto


export interface RemoveContainerResponse {
}

export interface RemoveContainerResponse__Output {
}
