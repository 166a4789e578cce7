// Original file: proto/qshim/v1/sandboxes.proto


export interface BootImages {
  'kernel'?: (string);
  'initrd'?: (string);
}

export interface BootImages__Output {
  'kernel': (string);
  'initrd': (string);
}
