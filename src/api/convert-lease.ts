import type { Timestamp__Output } from '../grpc/generated/google/protobuf/Timestamp.ts';
import type { Lease as LeaseMessage } from '../grpc/generated/qshim/v1/Lease.ts';
import { leaseFrom, type Lease } from '../volume/model/lease.ts';
import { timestamp } from './timestamp.ts';

/** What a request says of a lease. */
interface LeaseFields {
  readonly leaseMs: number;
  readonly leaseUntil: Timestamp__Output | null;
}

/** @throws ShimError INVALID_ARGUMENT */
export function leaseOf({ leaseMs, leaseUntil }: LeaseFields): Lease | undefined {
  return leaseFrom({ leaseMs, untilMs: millisecondsOf(leaseUntil) }, Date.now());
}

function millisecondsOf(time: Timestamp__Output | null): number | undefined {
  return time === null ? undefined : time.seconds * 1000 + Math.floor(time.nanos / 1e6);
}

export function leaseMessage(lease: Lease | undefined): LeaseMessage | null {
  if (lease === undefined) return null;
  return {
    until: timestamp(lease.untilMs),
    lengthMs: lease.lengthMs,
    warned: lease.warned === true,
    expired: lease.endedMs !== undefined,
    forceAt: timestamp(lease.forceAtMs),
  };
}
