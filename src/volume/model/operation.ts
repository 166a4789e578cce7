import { z } from 'zod';
import { maybe } from './maybe.ts';
import { drawSchema } from './draw.ts';
import { ioLimitsSchema } from './limits.ts';

/**
 * What can be done to a volume while it stays attached. Each volume has one slot for it: a second operation is refused
 * with the name of the first; only the same resize again joins it. It is in the journal from before it changes anything
 * until it has ended, so that a daemon that comes back takes it up again.
 */
export const operationSchema = z
  .discriminatedUnion('kind', [
    /**
     * Grows image, disk, encryption and file system; begun again from the bottom, since each of its steps may be
     * repeated.
     */
    z.object({ kind: z.literal('resize'), sizeBytes: z.int(), timeoutMs: z.int() }),
    /** Sets what the guest may ask of the disk in a second; looked at first, and set again where it differs. */
    z.object({ kind: z.literal('limit'), limits: ioLimitsSchema, draw: drawSchema.optional() }),
    /** Changes key slots; the keys are not kept, so a daemon that comes back looks at what became of it. */
    z.object({ kind: z.literal('change-keys'), change: z.enum(['add', 'change', 'remove', 'remove-slot']) }),
    /** Copies it to another medium while it is used, and puts the device there (volume/mirror). */
    z.object({
      kind: z.literal('migrate'),
      /** In one word each, for people; what is asked for in full, to know a repeat. */
      from: z.string(),
      to: z.string(),
      request: z.string(),
      /** `asked`: it stays in step until somebody says so. */
      pivot: z.enum(['automatic', 'asked']),
      /** 0: no limit. */
      speedBytesPerS: z.int(),
      step: z.object({
        at: z.enum(['preparing', 'copying', 'switching', 'closing']),
        /** The number of the medium that it is copied to, or, `closing`, of the one that it has left. */
        medium: z.int(),
        pivotAsked: z.literal(true).optional(),
      }),
    }),
  ])
  .readonly();

export type Operation = z.infer<typeof operationSchema>;

/** Those whose work listens to its signal, and leaves the volume as it was when that is aborted. */
const CANCELLABLE: ReadonlySet<string> = new Set<Operation['kind']>(['migrate']);

export function isCancellable({ kind }: { readonly kind: string }): boolean {
  return CANCELLABLE.has(kind);
}

export type Migration = Extract<Operation, { kind: 'migrate' }>;

/** QEMU was told, or was to be, to put the device on another medium: on which it is has to be seen. */
export function isSwitching(operation: Operation | undefined): boolean {
  return operation?.kind === 'migrate' && operation.step.at === 'switching';
}

/** What every operation under way has, beside what it is. */
export const operationTagSchema = z
  .object({
    /** The caller's, or made here; unique in the sandbox. */
    id: z.string(),
    /** Wall-clock milliseconds. */
    startedMs: z.number(),
    /** Somebody wants it cancelled. */
    cancelAsked: z.literal(true).optional(),
  })
  .readonly();

export type OperationTag = z.infer<typeof operationTagSchema>;

/** How far an operation is; not in the journal. */
export interface OperationProgress {
  /** What is done now, in a word or two. */
  readonly phase: string;
  /** Bytes done and bytes to do; `total` 0: it is not known. */
  readonly current: number;
  readonly total: number;
}

/** Why an operation has ended without success. */
const problemSchema = z
  .object({ code: z.string(), reason: z.string(), message: z.string(), metadata: z.record(z.string(), z.string()) })
  .readonly();

/** How an operation has ended. The kind is text: an older daemon that comes back does not know them all. */
export const outcomeSchema = z
  .object({
    id: z.string(),
    kind: z.string(),
    startedMs: z.number(),
    endedMs: z.number(),
    cancelled: z.boolean(),
    /** None: it has done what was asked for. */
    problem: maybe(problemSchema),
  })
  .readonly();

export type OperationProblem = z.infer<typeof problemSchema>;
export type Outcome = z.infer<typeof outcomeSchema>;

/** So many outcomes are kept of each volume. */
export const OUTCOMES_MAX = 8;

/** Between two that watchers are told of there are so many parts of the whole. */
const PROGRESS_STEPS = 20;

/** Whether one progress is news after another: another phase, or a step further. */
export function isFurther(before: OperationProgress | undefined, now: OperationProgress): boolean {
  return before?.phase !== now.phase || stepOf(before) !== stepOf(now);
}

function stepOf({ current, total }: OperationProgress): number {
  return total === 0 ? 0 : Math.floor((current * PROGRESS_STEPS) / total);
}

/** An operation as callers see it: one that is under way, or one that has ended. */
export interface OperationView {
  readonly id: string;
  readonly kind: string;
  readonly startedMs: number;
  readonly progress: OperationProgress | undefined;
  readonly cancelAsked: boolean;
  readonly cancellable: boolean;
  /** Undefined while it is under way. */
  readonly ended: Pick<Outcome, 'endedMs' | 'cancelled' | 'problem'> | undefined;
}

/** Of one under way. */
export function viewOf(
  operation: Operation,
  { id, startedMs, cancelAsked }: OperationTag,
  progress: OperationProgress | undefined,
): OperationView {
  const { kind } = operation;
  const cancellable = isCancellable(operation);
  return { id, kind, startedMs, progress, cancelAsked: cancelAsked === true, cancellable, ended: undefined };
}

/** Of one that has ended. */
export function viewOfOutcome({ id, kind, startedMs, endedMs, cancelled, problem }: Outcome): OperationView {
  const ended = { endedMs, cancelled, problem };
  return { id, kind, startedMs, progress: undefined, cancelAsked: cancelled, cancellable: false, ended };
}
