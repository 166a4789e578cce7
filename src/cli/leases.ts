/** Leases, as options and as people see them. */
import { InvalidArgumentError } from '@commander-js/extra-typings';
import { DURATION_FORM, parseDuration } from '../base/durations.ts';
import type { Timestamp } from '../grpc/generated/google/protobuf/Timestamp.ts';
import type { Lease__Output as Lease } from '../grpc/generated/qshim/v1/Lease.ts';
import { durationText, NOTHING, timestampOrNothing } from './values.ts';

export const LEASE_OPTION_FORM = `${DURATION_FORM}; or a time, such as 2030-01-31T12:00:00Z`;

/** As the requests of the API have it. */
export type LeaseFields = { readonly leaseMs: number } | { readonly leaseUntil: Timestamp };

/** A parser for a duration or a time in RFC 3339. */
export function leaseFields(text: string): LeaseFields {
  const leaseMs = parseDuration(text);
  if (leaseMs !== undefined && leaseMs > 0) return { leaseMs };
  // What else Date takes is read by each engine in its own way.
  const milliseconds = /^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)$/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isFinite(milliseconds)) throw new InvalidArgumentError(`Give ${LEASE_OPTION_FORM}.`);
  const seconds = Math.floor(milliseconds / 1000);
  return { leaseUntil: { seconds, nanos: (milliseconds - seconds * 1000) * 1e6 } };
}

export function leaseText(lease: Lease | null): string {
  if (lease === null) return NOTHING;
  const { until, lengthMs, expired, forceAt } = lease;
  if (until === null) return `${durationText(lengthMs)} from when it is attached`;
  const force = forceAt === null ? '' : `, taken by force at ${timestampOrNothing(forceAt)}`;
  return `${expired ? 'ended' : 'until'} ${timestampOrNothing(until)}${force}`;
}
