// Original file: proto/containerd/cri.proto


export interface StartContainerResponse {
}

export interface StartContainerResponse__Output {
}
