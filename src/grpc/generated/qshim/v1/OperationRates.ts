// Original file: proto/qshim/v1/stats.proto


export interface OperationRates {
  'operationsPerSecond'?: (number | string);
  'bytesPerSecond'?: (number | string);
  'meanNs'?: (number | string);
  'queueDepth'?: (number | string);
  '_bytesPerSecond'?: "bytesPerSecond";
  '_meanNs'?: "meanNs";
}

export interface OperationRates__Output {
  'operationsPerSecond': (number);
  'bytesPerSecond'?: (number);
  'meanNs'?: (number);
  'queueDepth': (number);
  '_bytesPerSecond'?: "bytesPerSecond";
  '_meanNs'?: "meanNs";
}
