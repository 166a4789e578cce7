// Original file: proto/qshim/v1/volumes.proto

import type { HostLuks as _qshim_v1_HostLuks, HostLuks__Output as _qshim_v1_HostLuks__Output } from '../../qshim/v1/HostLuks.ts';
import type { GuestLuks2 as _qshim_v1_GuestLuks2, GuestLuks2__Output as _qshim_v1_GuestLuks2__Output } from '../../qshim/v1/GuestLuks2.ts';

export interface Encryption {
  'hostLuks'?: (_qshim_v1_HostLuks | null);
  'guestLuks2'?: (_qshim_v1_GuestLuks2 | null);
  'kind'?: "hostLuks"|"guestLuks2";
}

export interface Encryption__Output {
  'hostLuks'?: (_qshim_v1_HostLuks__Output | null);
  'guestLuks2'?: (_qshim_v1_GuestLuks2__Output | null);
  'kind'?: "hostLuks"|"guestLuks2";
}
