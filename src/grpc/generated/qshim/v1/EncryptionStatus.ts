// Original file: proto/qshim/v1/volumes.proto


export interface EncryptionStatus {
  'format'?: (string);
  'cipher'?: (string);
  'sectorSize'?: (number);
  'integrity'?: (boolean);
  'keySlots'?: (number);
  'uuid'?: (string);
  'created'?: (boolean);
  'mappedDevice'?: (string);
}

export interface EncryptionStatus__Output {
  'format': (string);
  'cipher': (string);
  'sectorSize': (number);
  'integrity': (boolean);
  'keySlots': (number);
  'uuid': (string);
  'created': (boolean);
  'mappedDevice': (string);
}
