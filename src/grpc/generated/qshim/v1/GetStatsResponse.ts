// Original file: proto/qshim/v1/stats.proto

import type { VolumeStats as _qshim_v1_VolumeStats, VolumeStats__Output as _qshim_v1_VolumeStats__Output } from '../../qshim/v1/VolumeStats.ts';
import type { NotLookedAt as _qshim_v1_NotLookedAt, NotLookedAt__Output as _qshim_v1_NotLookedAt__Output } from '../../qshim/v1/NotLookedAt.ts';

export interface GetStatsResponse {
  'volumes'?: (_qshim_v1_VolumeStats)[];
  'notLookedAt'?: (_qshim_v1_NotLookedAt)[];
}

export interface GetStatsResponse__Output {
  'volumes': (_qshim_v1_VolumeStats__Output)[];
  'notLookedAt': (_qshim_v1_NotLookedAt__Output)[];
}
