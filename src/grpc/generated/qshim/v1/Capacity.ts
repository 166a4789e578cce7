// Original file: proto/qshim/v1/sandboxes.proto


export interface Capacity {
  'volumes'?: (number);
  'inUse'?: (number);
  'limit'?: (string);
  'interruptVectors'?: (number);
  'interruptVectorsInUse'?: (number);
}

export interface Capacity__Output {
  'volumes': (number);
  'inUse': (number);
  'limit': (string);
  'interruptVectors': (number);
  'interruptVectorsInUse': (number);
}
