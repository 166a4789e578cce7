// Original file: proto/qshim/v1/volumes.proto

import type { RawFile as _qshim_v1_RawFile, RawFile__Output as _qshim_v1_RawFile__Output } from '../../qshim/v1/RawFile.ts';
import type { Qcow2File as _qshim_v1_Qcow2File, Qcow2File__Output as _qshim_v1_Qcow2File__Output } from '../../qshim/v1/Qcow2File.ts';
import type { BlockDevice as _qshim_v1_BlockDevice, BlockDevice__Output as _qshim_v1_BlockDevice__Output } from '../../qshim/v1/BlockDevice.ts';
import type { NbdExport as _qshim_v1_NbdExport, NbdExport__Output as _qshim_v1_NbdExport__Output } from '../../qshim/v1/NbdExport.ts';
import type { PivotWhen as _qshim_v1_PivotWhen, PivotWhen__Output as _qshim_v1_PivotWhen__Output } from '../../qshim/v1/PivotWhen.ts';
import type { Long } from '@grpc/proto-loader';

export interface MigrateVolumeRequest {
  'sandboxId'?: (string);
  'volumeId'?: (string);
  'operationId'?: (string);
  'rawFile'?: (_qshim_v1_RawFile | null);
  'qcow2File'?: (_qshim_v1_Qcow2File | null);
  'blockDevice'?: (_qshim_v1_BlockDevice | null);
  'nbdExport'?: (_qshim_v1_NbdExport | null);
  'createIfMissing'?: (boolean);
  'overwrite'?: (boolean);
  'pivot'?: (_qshim_v1_PivotWhen);
  'speedBytesPerS'?: (number | string | Long);
  'target'?: "rawFile"|"qcow2File"|"blockDevice"|"nbdExport";
}

export interface MigrateVolumeRequest__Output {
  'sandboxId': (string);
  'volumeId': (string);
  'operationId': (string);
  'rawFile'?: (_qshim_v1_RawFile__Output | null);
  'qcow2File'?: (_qshim_v1_Qcow2File__Output | null);
  'blockDevice'?: (_qshim_v1_BlockDevice__Output | null);
  'nbdExport'?: (_qshim_v1_NbdExport__Output | null);
  'createIfMissing': (boolean);
  'overwrite': (boolean);
  'pivot': (_qshim_v1_PivotWhen__Output);
  'speedBytesPerS': (number);
  'target'?: "rawFile"|"qcow2File"|"blockDevice"|"nbdExport";
}
