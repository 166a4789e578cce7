// Original file: proto/qshim/v1/pod.proto

import type { VolumeToAttach as _qshim_v1_VolumeToAttach, VolumeToAttach__Output as _qshim_v1_VolumeToAttach__Output } from '../../qshim/v1/VolumeToAttach.ts';

export interface PodVolumes {
  'volumes'?: (_qshim_v1_VolumeToAttach)[];
}

export interface PodVolumes__Output {
  'volumes': (_qshim_v1_VolumeToAttach__Output)[];
}
