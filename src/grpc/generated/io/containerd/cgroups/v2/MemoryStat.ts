// Original file: proto/containerd/cgroups.proto

import type { Long } from '@grpc/proto-loader';

export interface MemoryStat {
  'anon'?: (number | string | Long);
  'file'?: (number | string | Long);
  'kernelStack'?: (number | string | Long);
  'slab'?: (number | string | Long);
  'sock'?: (number | string | Long);
  'shmem'?: (number | string | Long);
  'fileMapped'?: (number | string | Long);
  'fileDirty'?: (number | string | Long);
  'fileWriteback'?: (number | string | Long);
  'inactiveAnon'?: (number | string | Long);
  'activeAnon'?: (number | string | Long);
  'inactiveFile'?: (number | string | Long);
  'activeFile'?: (number | string | Long);
  'unevictable'?: (number | string | Long);
  'slabReclaimable'?: (number | string | Long);
  'slabUnreclaimable'?: (number | string | Long);
  'pgfault'?: (number | string | Long);
  'pgmajfault'?: (number | string | Long);
  'usage'?: (number | string | Long);
  'usageLimit'?: (number | string | Long);
}

export interface MemoryStat__Output {
  'anon': (number);
  'file': (number);
  'kernelStack': (number);
  'slab': (number);
  'sock': (number);
  'shmem': (number);
  'fileMapped': (number);
  'fileDirty': (number);
  'fileWriteback': (number);
  'inactiveAnon': (number);
  'activeAnon': (number);
  'inactiveFile': (number);
  'activeFile': (number);
  'unevictable': (number);
  'slabReclaimable': (number);
  'slabUnreclaimable': (number);
  'pgfault': (number);
  'pgmajfault': (number);
  'usage': (number);
  'usageLimit': (number);
}
