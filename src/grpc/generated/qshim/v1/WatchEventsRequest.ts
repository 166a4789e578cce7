// Original file: proto/qshim/v1/events.proto

import type { Long } from '@grpc/proto-loader';

export interface WatchEventsRequest {
  'afterSequence'?: (number | string | Long);
  'sandboxId'?: (string);
  'allRetained'?: (boolean);
  'afterEpoch'?: (string);
}

export interface WatchEventsRequest__Output {
  'afterSequence': (number);
  'sandboxId': (string);
  'allRetained': (boolean);
  'afterEpoch': (string);
}
