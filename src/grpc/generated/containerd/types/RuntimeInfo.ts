// Original file: proto/containerd/types.proto

import type { RuntimeVersion as _containerd_types_RuntimeVersion, RuntimeVersion__Output as _containerd_types_RuntimeVersion__Output } from '../../containerd/types/RuntimeVersion.ts';

export interface RuntimeInfo {
  'name'?: (string);
  'version'?: (_containerd_types_RuntimeVersion | null);
}

export interface RuntimeInfo__Output {
  'name': (string);
  'version': (_containerd_types_RuntimeVersion__Output | null);
}
