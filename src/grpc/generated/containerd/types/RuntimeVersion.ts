// Original file: proto/containerd/types.proto


export interface RuntimeVersion {
  'version'?: (string);
  'revision'?: (string);
}

export interface RuntimeVersion__Output {
  'version': (string);
  'revision': (string);
}
