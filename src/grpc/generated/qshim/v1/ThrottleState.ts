// Original file: proto/qshim/v1/stats.proto

import type { Long } from '@grpc/proto-loader';

export interface ThrottleState {
  'bps'?: (number | string | Long);
  'bpsRd'?: (number | string | Long);
  'bpsWr'?: (number | string | Long);
  'iops'?: (number | string | Long);
  'iopsRd'?: (number | string | Long);
  'iopsWr'?: (number | string | Long);
  'bpsMax'?: (number | string | Long);
  'bpsRdMax'?: (number | string | Long);
  'bpsWrMax'?: (number | string | Long);
  'iopsMax'?: (number | string | Long);
  'iopsRdMax'?: (number | string | Long);
  'iopsWrMax'?: (number | string | Long);
  'bpsMaxLength'?: (number | string | Long);
  'bpsRdMaxLength'?: (number | string | Long);
  'bpsWrMaxLength'?: (number | string | Long);
  'iopsMaxLength'?: (number | string | Long);
  'iopsRdMaxLength'?: (number | string | Long);
  'iopsWrMaxLength'?: (number | string | Long);
  'iopsSize'?: (number | string | Long);
  'group'?: (string);
  '_bpsMax'?: "bpsMax";
  '_bpsRdMax'?: "bpsRdMax";
  '_bpsWrMax'?: "bpsWrMax";
  '_iopsMax'?: "iopsMax";
  '_iopsRdMax'?: "iopsRdMax";
  '_iopsWrMax'?: "iopsWrMax";
  '_bpsMaxLength'?: "bpsMaxLength";
  '_bpsRdMaxLength'?: "bpsRdMaxLength";
  '_bpsWrMaxLength'?: "bpsWrMaxLength";
  '_iopsMaxLength'?: "iopsMaxLength";
  '_iopsRdMaxLength'?: "iopsRdMaxLength";
  '_iopsWrMaxLength'?: "iopsWrMaxLength";
  '_iopsSize'?: "iopsSize";
  '_group'?: "group";
}

export interface ThrottleState__Output {
  'bps': (number);
  'bpsRd': (number);
  'bpsWr': (number);
  'iops': (number);
  'iopsRd': (number);
  'iopsWr': (number);
  'bpsMax'?: (number);
  'bpsRdMax'?: (number);
  'bpsWrMax'?: (number);
  'iopsMax'?: (number);
  'iopsRdMax'?: (number);
  'iopsWrMax'?: (number);
  'bpsMaxLength'?: (number);
  'bpsRdMaxLength'?: (number);
  'bpsWrMaxLength'?: (number);
  'iopsMaxLength'?: (number);
  'iopsRdMaxLength'?: (number);
  'iopsWrMaxLength'?: (number);
  'iopsSize'?: (number);
  'group'?: (string);
  '_bpsMax'?: "bpsMax";
  '_bpsRdMax'?: "bpsRdMax";
  '_bpsWrMax'?: "bpsWrMax";
  '_iopsMax'?: "iopsMax";
  '_iopsRdMax'?: "iopsRdMax";
  '_iopsWrMax'?: "iopsWrMax";
  '_bpsMaxLength'?: "bpsMaxLength";
  '_bpsRdMaxLength'?: "bpsRdMaxLength";
  '_bpsWrMaxLength'?: "bpsWrMaxLength";
  '_iopsMaxLength'?: "iopsMaxLength";
  '_iopsRdMaxLength'?: "iopsRdMaxLength";
  '_iopsWrMaxLength'?: "iopsWrMaxLength";
  '_iopsSize'?: "iopsSize";
  '_group'?: "group";
}
