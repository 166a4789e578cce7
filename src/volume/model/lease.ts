import { z } from 'zod';
import { invalidArgument } from '../../base/errors.ts';
import type { Cause } from './state.ts';

/**
 * For how long a volume may stay: pure, as all of model/facts.ts. leases.ts keeps the time.
 *
 *     given ─▶ begins as the volume becomes ATTACHED ─▶ LEASE_ENDING ─▶ LEASE_ENDED ─▶ asked ─▶ LEASE_HELD ─┐
 *       ▲                                                                                ▲──────────────────┘
 *       └────────────────────────────── LEASE_RENEWED, while it is PENDING or ATTACHED
 *
 * A daemon counts by the monotonic clock. The wall clock is for the daemon that comes after it.
 */

/** Ten years. */
export const LEASE_MS_MAX = 10 * 366 * 86_400_000;

export const leaseSchema = z
  .object({
    /** What it was given for; no clock makes it last longer. */
    lengthMs: z.number(),
    /** Wall-clock milliseconds of its end; missing until it begins. */
    untilMs: z.number().optional(),
    /** Its end was told beforehand. */
    warned: z.literal(true).optional(),
    /** It was seen to end then, by the wall clock; the volume is on its way out, or held. */
    endedMs: z.number().optional(),
    /** When the volume is taken by force, by the wall clock; announced. */
    forceAtMs: z.number().optional(),
  })
  .readonly();
export type Lease = z.infer<typeof leaseSchema>;

export type LeaseInput =
  /** One is given, or another in its place. */
  | { readonly kind: 'lease-given'; readonly lease: Lease }
  | { readonly kind: 'lease-ending'; readonly leftMs: number; readonly missed: boolean }
  | { readonly kind: 'lease-ended' }
  /** The volume did not go: nobody takes it from a guest that has not let go of it. */
  | { readonly kind: 'lease-held'; readonly why: string }
  /** It will be taken by force. */
  | { readonly kind: 'lease-force'; readonly inMs: number }
  | { readonly kind: 'lease-forced' };

interface LeaseFacts {
  readonly lease: Lease | undefined;
}

export function isLeaseInput(input: { readonly kind: string }): input is LeaseInput {
  return input.kind.startsWith('lease-');
}

/** What a caller asks for; one of the two. */
export interface RequestedLease {
  /** Milliseconds from the time at which the volume is ATTACHED; 0: not asked for. */
  readonly leaseMs: number;
  /** Wall-clock milliseconds. */
  readonly untilMs: number | undefined;
}

/**
 * The lease that is asked for; undefined when none is.
 * @throws ShimError INVALID_ARGUMENT
 */
export function leaseFrom({ leaseMs, untilMs }: RequestedLease, nowMs: number): Lease | undefined {
  if (untilMs === undefined) {
    if (leaseMs === 0) return undefined;
    return { lengthMs: within('lease_ms', leaseMs, leaseMs) };
  }
  if (leaseMs !== 0) throw invalidArgument('lease_ms', leaseMs, 'cannot be together with lease_until');
  if (untilMs <= nowMs) throw invalidArgument('lease_until', new Date(untilMs).toISOString(), 'has passed');
  return { lengthMs: within('lease_until', untilMs, untilMs - nowMs), untilMs };
}

function within(field: string, value: number, lengthMs: number): number {
  if (Number.isSafeInteger(lengthMs) && lengthMs <= LEASE_MS_MAX) return lengthMs;
  throw invalidArgument(field, value, `is more than ten years (${LEASE_MS_MAX} ms)`);
}

/** As the volume becomes ATTACHED, and as one that is so gets another. */
export function begun(lease: Lease, nowMs: number): Lease {
  return lease.untilMs === undefined ? { ...lease, untilMs: nowMs + lease.lengthMs } : lease;
}

/** Milliseconds that are left of it: from 0 to all that it was given for, whatever became of the wall clock. */
export function leftMs({ lengthMs, untilMs }: Lease, nowMs: number): number {
  return untilMs === undefined ? lengthMs : Math.min(lengthMs, Math.max(0, untilMs - nowMs));
}

/** So long before its end it is told: what is configured, and at most half of it. */
export function warningMs({ lengthMs }: Lease, configuredMs: number): number {
  return Math.min(configuredMs, Math.floor(lengthMs / 2));
}

/** What becomes of the facts, and what watchers are told. */
export function observeLease<F extends LeaseFacts>(
  facts: F,
  input: LeaseInput,
  nowMs: number,
): { readonly facts: F; readonly cause: Cause | undefined } {
  const { lease } = facts;
  if (input.kind === 'lease-given') {
    const { untilMs, lengthMs } = input.lease;
    const end = untilMs === undefined ? `ends ${lengthMs} ms after it is attached` : `ends at ${time(untilMs)}`;
    return { facts: { ...facts, lease: input.lease }, cause: { reason: 'LEASE_RENEWED', message: `the lease ${end}` } };
  }
  if (lease === undefined) return { facts, cause: undefined };
  return { facts: { ...facts, lease: changed(lease, input, nowMs) }, cause: causeOf(lease, input, nowMs) };
}

function changed(lease: Lease, input: Exclude<LeaseInput, { kind: 'lease-given' }>, nowMs: number): Lease {
  switch (input.kind) {
    case 'lease-ending':
      return { ...lease, warned: true };
    case 'lease-ended':
      return { ...lease, endedMs: nowMs };
    case 'lease-force':
      return { ...lease, forceAtMs: nowMs + input.inMs };
    case 'lease-held':
    case 'lease-forced':
      return lease;
  }
}

function causeOf({ untilMs = 0 }: Lease, input: Exclude<LeaseInput, { kind: 'lease-given' }>, nowMs: number): Cause {
  switch (input.kind) {
    case 'lease-ending': {
      const left = `${Math.round(input.leftMs)} ms`;
      const message = input.missed
        ? `the lease ended at ${time(untilMs)}, by the daemon's absence; whoever needs the volume renews it within ${left}`
        : `the lease ends in ${left}; whoever needs the volume renews it`;
      return { reason: 'LEASE_ENDING', message };
    }
    case 'lease-ended':
      return { reason: 'LEASE_ENDED', message: 'the lease was not renewed: the volume is detached' };
    case 'lease-held':
      return { reason: 'LEASE_HELD', message: `the lease has ended, and the volume is still there: ${input.why}` };
    case 'lease-force': {
      const at = time(nowMs + input.inMs);
      return { reason: 'LEASE_FORCE_AHEAD', message: `the volume is taken by force at ${at}, unless it is renewed` };
    }
    case 'lease-forced':
      return { reason: 'LEASE_FORCED', message: 'the volume is taken by force: what is not written is lost' };
  }
}

function time(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}
