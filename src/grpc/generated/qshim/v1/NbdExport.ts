// Original file: proto/qshim/v1/volumes.proto


export interface NbdExport {
  'socket'?: (string);
  'host'?: (string);
  'port'?: (number);
  'exportName'?: (string);
  'reconnectDelayS'?: (number);
  'tlsCredentials'?: (string);
  'server'?: "socket"|"host";
}

export interface NbdExport__Output {
  'socket'?: (string);
  'host'?: (string);
  'port': (number);
  'exportName': (string);
  'reconnectDelayS': (number);
  'tlsCredentials': (string);
  'server'?: "socket"|"host";
}
