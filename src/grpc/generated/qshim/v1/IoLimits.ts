// Original file: proto/qshim/v1/volumes.proto

import type { Long } from '@grpc/proto-loader';

export interface IoLimits {
  'iops'?: (number | string | Long);
  'iopsRead'?: (number | string | Long);
  'iopsWrite'?: (number | string | Long);
  'bps'?: (number | string | Long);
  'bpsRead'?: (number | string | Long);
  'bpsWrite'?: (number | string | Long);
  'iopsMax'?: (number | string | Long);
  'iopsReadMax'?: (number | string | Long);
  'iopsWriteMax'?: (number | string | Long);
  'bpsMax'?: (number | string | Long);
  'bpsReadMax'?: (number | string | Long);
  'bpsWriteMax'?: (number | string | Long);
  'iopsMaxLengthS'?: (number);
  'iopsReadMaxLengthS'?: (number);
  'iopsWriteMaxLengthS'?: (number);
  'bpsMaxLengthS'?: (number);
  'bpsReadMaxLengthS'?: (number);
  'bpsWriteMaxLengthS'?: (number);
  'iopsSize'?: (number | string | Long);
  'group'?: (string);
  'budget'?: (string);
  'share'?: (number);
}

export interface IoLimits__Output {
  'iops': (number);
  'iopsRead': (number);
  'iopsWrite': (number);
  'bps': (number);
  'bpsRead': (number);
  'bpsWrite': (number);
  'iopsMax': (number);
  'iopsReadMax': (number);
  'iopsWriteMax': (number);
  'bpsMax': (number);
  'bpsReadMax': (number);
  'bpsWriteMax': (number);
  'iopsMaxLengthS': (number);
  'iopsReadMaxLengthS': (number);
  'iopsWriteMaxLengthS': (number);
  'bpsMaxLengthS': (number);
  'bpsReadMaxLengthS': (number);
  'bpsWriteMaxLengthS': (number);
  'iopsSize': (number);
  'group': (string);
  'budget': (string);
  'share': (number);
}
