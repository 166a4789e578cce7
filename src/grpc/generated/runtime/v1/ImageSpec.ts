// Original file: proto/containerd/cri.proto


export interface ImageSpec {
  'image'?: (string);
}

export interface ImageSpec__Output {
  'image': (string);
}
