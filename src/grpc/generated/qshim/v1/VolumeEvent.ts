// Original file: proto/qshim/v1/volumes.proto

import type { Event as _qshim_v1_Event, Event__Output as _qshim_v1_Event__Output } from '../../qshim/v1/Event.ts';
import type { Volume as _qshim_v1_Volume, Volume__Output as _qshim_v1_Volume__Output } from '../../qshim/v1/Volume.ts';

export interface VolumeEvent {
  'event'?: (_qshim_v1_Event | null);
  'volume'?: (_qshim_v1_Volume | null);
}

export interface VolumeEvent__Output {
  'event': (_qshim_v1_Event__Output | null);
  'volume': (_qshim_v1_Volume__Output | null);
}
