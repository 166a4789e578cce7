// Original file: proto/qshim/v1/volumes.proto

import type { RawFile as _qshim_v1_RawFile, RawFile__Output as _qshim_v1_RawFile__Output } from '../../qshim/v1/RawFile.ts';
import type { Qcow2File as _qshim_v1_Qcow2File, Qcow2File__Output as _qshim_v1_Qcow2File__Output } from '../../qshim/v1/Qcow2File.ts';
import type { BlockDevice as _qshim_v1_BlockDevice, BlockDevice__Output as _qshim_v1_BlockDevice__Output } from '../../qshim/v1/BlockDevice.ts';
import type { CacheMode as _qshim_v1_CacheMode, CacheMode__Output as _qshim_v1_CacheMode__Output } from '../../qshim/v1/CacheMode.ts';
import type { AioMode as _qshim_v1_AioMode, AioMode__Output as _qshim_v1_AioMode__Output } from '../../qshim/v1/AioMode.ts';
import type { DiscardMode as _qshim_v1_DiscardMode, DiscardMode__Output as _qshim_v1_DiscardMode__Output } from '../../qshim/v1/DiscardMode.ts';
import type { DetectZeroes as _qshim_v1_DetectZeroes, DetectZeroes__Output as _qshim_v1_DetectZeroes__Output } from '../../qshim/v1/DetectZeroes.ts';
import type { Mount as _qshim_v1_Mount, Mount__Output as _qshim_v1_Mount__Output } from '../../qshim/v1/Mount.ts';
import type { IoErrorPolicy as _qshim_v1_IoErrorPolicy, IoErrorPolicy__Output as _qshim_v1_IoErrorPolicy__Output } from '../../qshim/v1/IoErrorPolicy.ts';
import type { Encryption as _qshim_v1_Encryption, Encryption__Output as _qshim_v1_Encryption__Output } from '../../qshim/v1/Encryption.ts';
import type { NbdExport as _qshim_v1_NbdExport, NbdExport__Output as _qshim_v1_NbdExport__Output } from '../../qshim/v1/NbdExport.ts';
import type { IoLimits as _qshim_v1_IoLimits, IoLimits__Output as _qshim_v1_IoLimits__Output } from '../../qshim/v1/IoLimits.ts';

export interface VolumeSpec {
  'rawFile'?: (_qshim_v1_RawFile | null);
  'qcow2File'?: (_qshim_v1_Qcow2File | null);
  'blockDevice'?: (_qshim_v1_BlockDevice | null);
  'readOnly'?: (boolean);
  'cache'?: (_qshim_v1_CacheMode);
  'aio'?: (_qshim_v1_AioMode);
  'discard'?: (_qshim_v1_DiscardMode);
  'detectZeroes'?: (_qshim_v1_DetectZeroes);
  'serial'?: (string);
  'queues'?: (number);
  'logicalBlockSize'?: (number);
  'physicalBlockSize'?: (number);
  'mount'?: (_qshim_v1_Mount | null);
  'writeErrors'?: (_qshim_v1_IoErrorPolicy);
  'readErrors'?: (_qshim_v1_IoErrorPolicy);
  'encryption'?: (_qshim_v1_Encryption | null);
  'nbdExport'?: (_qshim_v1_NbdExport | null);
  'limits'?: (_qshim_v1_IoLimits | null);
  'source'?: "rawFile"|"qcow2File"|"blockDevice"|"nbdExport";
}

export interface VolumeSpec__Output {
  'rawFile'?: (_qshim_v1_RawFile__Output | null);
  'qcow2File'?: (_qshim_v1_Qcow2File__Output | null);
  'blockDevice'?: (_qshim_v1_BlockDevice__Output | null);
  'readOnly': (boolean);
  'cache': (_qshim_v1_CacheMode__Output);
  'aio': (_qshim_v1_AioMode__Output);
  'discard': (_qshim_v1_DiscardMode__Output);
  'detectZeroes': (_qshim_v1_DetectZeroes__Output);
  'serial': (string);
  'queues': (number);
  'logicalBlockSize': (number);
  'physicalBlockSize': (number);
  'mount': (_qshim_v1_Mount__Output | null);
  'writeErrors': (_qshim_v1_IoErrorPolicy__Output);
  'readErrors': (_qshim_v1_IoErrorPolicy__Output);
  'encryption': (_qshim_v1_Encryption__Output | null);
  'nbdExport'?: (_qshim_v1_NbdExport__Output | null);
  'limits': (_qshim_v1_IoLimits__Output | null);
  'source'?: "rawFile"|"qcow2File"|"blockDevice"|"nbdExport";
}
