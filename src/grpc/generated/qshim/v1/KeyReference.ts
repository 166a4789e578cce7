// Original file: proto/qshim/v1/volumes.proto


export interface KeyReference {
  'file'?: (string);
  'systemdCredential'?: (string);
  'environment'?: (string);
  'command'?: (string);
  'tang'?: (string);
  'source'?: "file"|"systemdCredential"|"environment"|"command"|"tang";
}

export interface KeyReference__Output {
  'file'?: (string);
  'systemdCredential'?: (string);
  'environment'?: (string);
  'command'?: (string);
  'tang'?: (string);
  'source'?: "file"|"systemdCredential"|"environment"|"command"|"tang";
}
