import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Timing } from '../../base/stopwatch.ts';
import { aioModeSchema, type AioMode } from './disk.ts';
import { encryptionViewSchema, imageCreationSchema, type EncryptionView, type ImageCreation } from './encryption.ts';
import { drawSchema, type Draw } from './draw.ts';
import { ioLimitsSchema, limitsText, UNLIMITED, type IoLimits } from './limits.ts';
import { begun, isLeaseInput, leaseSchema, observeLease, type Lease, type LeaseInput } from './lease.ts';
import { maybe } from './maybe.ts';
import { ended, isOperationInput, observeOperation, type OperationFacts, type OperationInput } from './operating.ts';
import { operationSchema, operationTagSchema, outcomeSchema, type Operation, type Outcome } from './operation.ts';
import { transition, type Cause, type GuestView, type StateInput, type Transition, type VolumeState } from './state.ts';

/**
 * What is known of one generation of a volume, and how news changes it: pure and total. The state is the part of it
 * that decides what may be done (state.ts); the rest is told to callers, and kept for the next daemon.
 */

export const stateTimesSchema = z
  .object({
    pending: z.number(),
    attached: maybe(z.number()),
    detaching: maybe(z.number()),
    removed: maybe(z.number()),
  })
  .readonly();
/** Wall-clock milliseconds of each state's beginning. */
export type StateTimes = z.infer<typeof stateTimesSchema>;

/** What QEMU has told of a volume's I/O errors. */
export interface VolumeHealth {
  readonly failing: boolean;
  readonly errors: number;
  readonly last?: IoError;
}

export interface IoError {
  readonly operation: string;
  readonly message: string;
  readonly action: string;
  readonly noSpace: boolean;
  readonly timeMs: number;
}

export interface JobProgress {
  readonly type: string;
  readonly status: string;
  /** In a unit of the job's own. */
  readonly current: number;
  readonly total: number;
}

/**
 * What qshim has made in the guest of the volume's disk, and has to take away before the disk goes. True from before
 * the guest is asked for it until it is seen not to be there (or its boot has ended).
 */
export interface MadeInGuest {
  readonly mapping: boolean;
  readonly mount: boolean;
}

export interface VolumeFacts extends OperationFacts {
  readonly state: VolumeState;
  readonly times: StateTimes;
  readonly timings: readonly Timing[];
  /** Bytes that the disk has. */
  readonly sizeBytes: number;
  /** What the last resize asked for: a device may have answered with more. Not in the journal. */
  readonly askedBytes: number | undefined;
  /** The last guest view, kept after removal for those who ask. */
  readonly guest: GuestView | undefined;
  readonly made: MadeInGuest;
  /** The aio mode that QEMU accepted. */
  readonly aio: AioMode | undefined;
  /** How it was seen to be encrypted. */
  readonly encryption: EncryptionView | undefined;
  /** An image is being made of its source, and no guest has had it yet. */
  readonly creating: ImageCreation | undefined;
  /** What QEMU was seen to hold its I/O to; undefined: it was never limited. */
  readonly limits: IoLimits | undefined;
  /** The budget of the daemon's that decides on its limits. */
  readonly draw: Draw | undefined;
  /** The job that QEMU works on for it. */
  readonly job: JobProgress | undefined;
  readonly health: VolumeHealth;
  /** QEMU's word for why it keeps a node of a disk that the guest has let go of. */
  readonly heldBy: string | undefined;
  /** For how long it may stay; undefined: for ever. */
  readonly lease: Lease | undefined;
}

/** The part of the facts that outlives the daemon. */
export const factsSchema = z.object({
  times: stateTimesSchema,
  aio: maybe(aioModeSchema),
  encryption: maybe(encryptionViewSchema),
  creating: maybe(imageCreationSchema),
  operation: maybe(operationSchema).optional(),
  operationTag: maybe(operationTagSchema).optional(),
  outcomes: z.array(outcomeSchema).readonly().optional(),
  limits: ioLimitsSchema.optional(),
  lease: leaseSchema.optional(),
  draw: drawSchema.optional(),
});

export type VolumeInput =
  | StateInput
  /** QEMU has opened the source; `aio`: in this mode. */
  | { readonly kind: 'opened'; readonly aio: AioMode | undefined }
  /** The encryption was opened in the guest, or is about to be; or was seen to be closed. */
  | { readonly kind: 'mapped'; readonly mapping: boolean }
  /** The file system was mounted in the guest, or is about to be; or was seen not to be. */
  | { readonly kind: 'mounted'; readonly mount: boolean }
  | { readonly kind: 'encrypted'; readonly encryption: EncryptionView }
  /** An image is begun; undefined: it is finished, or empty again. */
  | { readonly kind: 'creating'; readonly creating: ImageCreation | undefined }
  /** The disk was seen to have this size. */
  | { readonly kind: 'sized'; readonly sizeBytes: number; readonly askedBytes: number }
  | { readonly kind: 'job'; readonly job: JobProgress | undefined }
  | OperationInput
  /** QEMU was seen to hold its I/O to this. */
  | { readonly kind: 'limited'; readonly limits: IoLimits }
  | LeaseInput
  /** It draws on a budget from now on, or on none any more. */
  | { readonly kind: 'drawn'; readonly draw: Draw | undefined }
  /** Of a disk that the guest has let go of: QEMU keeps a node, and says why. */
  | { readonly kind: 'held'; readonly by: string | undefined }
  | { readonly kind: 'io-error'; readonly error: IoError }
  /** The VM goes on: what had failed for want of space has been tried anew. */
  | { readonly kind: 'resumed' }
  /** The guest was reset: what qshim had made in its last boot is gone. */
  | { readonly kind: 'guest-reset' }
  | { readonly kind: 'timed'; readonly timings: readonly Timing[] };

/** What watchers are told of besides a change of state. */
export interface News {
  readonly type:
    'volume.health' | 'volume.job' | 'volume.lease' | 'volume.limited' | 'volume.operation' | 'volume.resized';
  readonly cause: Cause;
}

export interface Observed {
  readonly facts: VolumeFacts;
  readonly result: Transition | { readonly kind: 'noted' };
  readonly news: News | undefined;
}

/** What becomes of the facts. */
export function observe(facts: VolumeFacts, input: VolumeInput, nowMs: number): Observed {
  if (isOperationInput(input)) {
    const { facts: next, cause } = observeOperation(facts, input, nowMs);
    return noted(next, cause && { type: 'volume.operation', cause });
  }
  if (isLeaseInput(input)) {
    const { facts: next, cause } = observeLease(facts, input, nowMs);
    return noted(next, cause && { type: 'volume.lease', cause });
  }
  switch (input.kind) {
    case 'opened':
      return noted({ ...facts, aio: input.aio });
    case 'mapped':
      return noted({ ...facts, made: { ...facts.made, mapping: input.mapping } });
    case 'mounted':
      return noted({ ...facts, made: { ...facts.made, mount: input.mount } });
    case 'encrypted':
      return noted({ ...facts, encryption: input.encryption });
    case 'creating':
      return noted({ ...facts, creating: input.creating });
    case 'sized':
      return sized({ ...facts, askedBytes: input.askedBytes }, input.sizeBytes);
    case 'job':
      return withJob(facts, input.job);
    case 'drawn':
      return noted({ ...facts, draw: input.draw });
    case 'limited':
      return limited(facts, input.limits);
    case 'held':
      return noted({ ...facts, heldBy: input.by });
    case 'io-error':
      return ioError(facts, input.error);
    case 'resumed':
      return resumed(facts);
    case 'guest-reset':
      return noted({ ...facts, made: NOTHING_MADE, encryption: hostsOwn(facts.encryption) });
    case 'timed':
      return noted({ ...facts, timings: input.timings });
    default:
      return changed(facts, input, nowMs);
  }
}

/** How an operation ends whose volume is removed. */
function wentWithVolume(operation: Operation | undefined): Pick<Outcome, 'cancelled' | 'problem'> {
  if (operation?.kind === 'migrate' && operation.step.at === 'switching') {
    const { from, to } = operation;
    const problem = {
      ...{ code: 'ABORTED', reason: 'MOVE_OUTCOME_UNKNOWN', metadata: { from, to } },
      message: `the volume went while it was put from ${from} to ${to}: it was not seen on which of them it was last`,
    };
    return { cancelled: false, problem };
  }
  const message = 'the volume was removed meanwhile';
  return { cancelled: false, problem: { code: 'ABORTED', reason: 'VOLUME_REMOVED', message, metadata: {} } };
}

export const NOTHING_MADE: MadeInGuest = { mapping: false, mount: false };

function noted(facts: VolumeFacts, news?: News): Observed {
  return { facts, result: { kind: 'noted' }, news };
}

function changed(facts: VolumeFacts, input: StateInput, nowMs: number): Observed {
  const result = transition(facts.state, input);
  if (result.kind !== 'next') return { facts, result, news: undefined };
  const { next } = result;
  const isNew = next.state !== facts.state.state;
  const now: VolumeFacts = {
    ...facts,
    state: next,
    guest: 'guest' in next ? next.guest : facts.guest,
    times: isNew ? { ...facts.times, [next.state]: nowMs } : facts.times,
    lease: leaseIn(next, facts.lease, nowMs),
  };
  if (next.state !== 'removed') return { facts: now, result, news: undefined };
  const { facts: over, cause } = ended({ ...now, made: NOTHING_MADE }, wentWithVolume(now.operation), nowMs);
  return { facts: over, result, news: cause && { type: 'volume.operation', cause } };
}

function leaseIn({ state }: VolumeState, lease: Lease | undefined, nowMs: number): Lease | undefined {
  if (state === 'removed' || lease === undefined) return undefined;
  return state === 'attached' ? begun(lease, nowMs) : lease;
}

function sized(facts: VolumeFacts, sizeBytes: number): Observed {
  if (sizeBytes === facts.sizeBytes) return noted(facts);
  const message = `the disk has ${sizeBytes} bytes, it had ${facts.sizeBytes}`;
  return noted({ ...facts, sizeBytes }, { type: 'volume.resized', cause: { reason: 'RESIZED', message } });
}

function limited(facts: VolumeFacts, limits: IoLimits): Observed {
  // A budget moves them again and again; how it stands is to be asked.
  const isNews = facts.draw === undefined && !isDeepStrictEqual(facts.limits ?? UNLIMITED, limits);
  if (!isNews) return noted({ ...facts, limits });
  return noted(
    { ...facts, limits },
    { type: 'volume.limited', cause: { reason: 'LIMITED', message: limitsText(limits) } },
  );
}

function withJob(facts: VolumeFacts, job: JobProgress | undefined): Observed {
  const changes = job?.status !== facts.job?.status || job?.current !== facts.job?.current;
  if (job === undefined || !changes) return noted({ ...facts, job });
  const message = `${job.type}: ${job.status}, ${job.current} of ${job.total}`;
  return noted({ ...facts, job }, { type: 'volume.job', cause: { reason: 'JOB_PROGRESS', message } });
}

function ioError(facts: VolumeFacts, last: IoError): Observed {
  const health = { failing: true, errors: facts.health.errors + 1, last };
  const cause: Cause = {
    reason: last.noSpace ? 'NO_SPACE' : 'IO_ERROR',
    message: `${last.operation} failed: ${last.message} (action ${last.action})`,
  };
  return noted({ ...facts, health }, { type: 'volume.health', cause });
}

function resumed(facts: VolumeFacts): Observed {
  const { health } = facts;
  if (!health.failing || health.last?.noSpace !== true) return noted(facts);
  const cause: Cause = { reason: 'RESUMED', message: 'the VM goes on after it had paused for space' };
  return noted({ ...facts, health: { ...health, failing: false } }, { type: 'volume.health', cause });
}

/** LUKS1 is QEMU's, and stays open over a reset of the guest; a mapping was the last boot's. */
function hostsOwn(encryption: EncryptionView | undefined): EncryptionView | undefined {
  return encryption?.format === 'luks1' ? encryption : undefined;
}
