// Original file: proto/qshim/v1/sandboxes.proto

import type { Accelerator as _qshim_v1_Accelerator, Accelerator__Output as _qshim_v1_Accelerator__Output } from '../../qshim/v1/Accelerator.ts';
import type { ReadyWhen as _qshim_v1_ReadyWhen, ReadyWhen__Output as _qshim_v1_ReadyWhen__Output } from '../../qshim/v1/ReadyWhen.ts';
import type { TemplateUse as _qshim_v1_TemplateUse, TemplateUse__Output as _qshim_v1_TemplateUse__Output } from '../../qshim/v1/TemplateUse.ts';
import type { Long } from '@grpc/proto-loader';

export interface SandboxSpec {
  'vcpus'?: (number);
  'memoryMib'?: (number | string | Long);
  'kernel'?: (string);
  'initrd'?: (string);
  'kernelParameters'?: (string);
  'accelerator'?: (_qshim_v1_Accelerator);
  'volumeCapacity'?: (number);
  'labels'?: ({[key: string]: string});
  'readyWhen'?: (_qshim_v1_ReadyWhen);
  'template'?: (_qshim_v1_TemplateUse);
  'iothreads'?: (number);
}

export interface SandboxSpec__Output {
  'vcpus': (number);
  'memoryMib': (number);
  'kernel': (string);
  'initrd': (string);
  'kernelParameters': (string);
  'accelerator': (_qshim_v1_Accelerator__Output);
  'volumeCapacity': (number);
  'labels': ({[key: string]: string});
  'readyWhen': (_qshim_v1_ReadyWhen__Output);
  'template': (_qshim_v1_TemplateUse__Output);
  'iothreads': (number);
}
