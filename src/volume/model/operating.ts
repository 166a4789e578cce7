import type { Reason } from '../../base/reasons.ts';
import {
  isFurther,
  OUTCOMES_MAX,
  viewOf,
  viewOfOutcome,
  type Operation,
  type OperationProblem,
  type OperationProgress,
  type OperationTag,
  type OperationView,
  type Outcome,
} from './operation.ts';
import type { Cause } from './state.ts';

/** What is known of a volume's operations, and how news changes it: pure, as all of model/facts.ts. */
export interface OperationFacts {
  /** What is being done to it while it stays attached. */
  readonly operation: Operation | undefined;
  /** There while there is an operation. */
  readonly operationTag: OperationTag | undefined;
  readonly progress: OperationProgress | undefined;
  /** How the last ones have ended, the newest last. */
  readonly outcomes: readonly Outcome[];
}

export type OperationInput =
  | { readonly kind: 'operation-begun'; readonly operation: Operation; readonly tag: OperationTag }
  /** What a later daemon needs to know of it has changed: it has come to another step. */
  | { readonly kind: 'operation-changed'; readonly operation: Operation }
  | { readonly kind: 'operation-progress'; readonly progress: OperationProgress }
  /** Somebody wants it cancelled. */
  | { readonly kind: 'operation-cancel' }
  | {
      readonly kind: 'operation-ended';
      readonly cancelled: boolean;
      /** Undefined: it has done what was asked for. */
      readonly problem: OperationProblem | undefined;
    };

export const NO_OPERATION: OperationFacts = {
  operation: undefined,
  operationTag: undefined,
  progress: undefined,
  outcomes: [],
};

export function isOperationInput(input: { readonly kind: string }): input is OperationInput {
  return input.kind.startsWith('operation-');
}

/** What becomes of the facts, and what watchers are told. */
export function observeOperation<F extends OperationFacts>(
  facts: F,
  input: OperationInput,
  nowMs: number,
): { readonly facts: F; readonly cause: Cause | undefined } {
  switch (input.kind) {
    case 'operation-begun': {
      const { operation, tag } = input;
      const cause = causeOf('OPERATION_STARTED', operation, tag, 'begun');
      return { facts: { ...facts, operation, operationTag: tag, progress: undefined }, cause };
    }
    case 'operation-changed':
      return { facts: { ...facts, operation: input.operation }, cause: undefined };
    case 'operation-progress':
      return progressed(facts, input.progress);
    case 'operation-cancel':
      return cancelAsked(facts);
    case 'operation-ended':
      return ended(facts, input, nowMs);
  }
}

function progressed<F extends OperationFacts>(
  facts: F,
  progress: OperationProgress,
): ReturnType<typeof observeOperation<F>> {
  const { operation, operationTag } = facts;
  if (operation === undefined || operationTag === undefined) return { facts, cause: undefined };
  const { phase, current, total } = progress;
  const far = total === 0 ? phase : `${phase}, ${current} of ${total} bytes`;
  const cause = isFurther(facts.progress, progress)
    ? causeOf('OPERATION_PROGRESS', operation, operationTag, far)
    : undefined;
  return { facts: { ...facts, progress }, cause };
}

function cancelAsked<F extends OperationFacts>(facts: F): ReturnType<typeof observeOperation<F>> {
  const { operation, operationTag } = facts;
  if (operation === undefined || operationTag === undefined || operationTag.cancelAsked === true) {
    return { facts, cause: undefined };
  }
  const cause = causeOf('OPERATION_PROGRESS', operation, operationTag, 'to be cancelled');
  return { facts: { ...facts, operationTag: { ...operationTag, cancelAsked: true } }, cause };
}

/** Also of one that goes with its volume. */
export function ended<F extends OperationFacts>(
  facts: F,
  { cancelled, problem }: Pick<Outcome, 'cancelled' | 'problem'>,
  nowMs: number,
): ReturnType<typeof observeOperation<F>> {
  const { operation, operationTag, outcomes } = facts;
  const free = { ...facts, operation: undefined, operationTag: undefined, progress: undefined };
  if (operation === undefined || operationTag === undefined) return { facts: free, cause: undefined };
  const { id, startedMs } = operationTag;
  const outcome: Outcome = { id, kind: operation.kind, startedMs, endedMs: nowMs, cancelled, problem };
  return {
    facts: { ...free, outcomes: [...outcomes, outcome].slice(-OUTCOMES_MAX) },
    cause: endCause(operation, operationTag, outcome),
  };
}

function endCause(operation: Operation, tag: OperationTag, { cancelled, problem }: Outcome): Cause {
  if (cancelled) return causeOf('OPERATION_CANCELLED', operation, tag, 'cancelled');
  if (problem === undefined) return causeOf('OPERATION_DONE', operation, tag, 'done');
  return causeOf('OPERATION_FAILED', operation, tag, `failed (${problem.reason}): ${problem.message}`);
}

function causeOf(reason: Reason, { kind }: Operation, { id }: OperationTag, what: string): Cause {
  return { reason, message: `${kind} ${id}: ${what}` };
}

/** All that are known, as callers see them: those that have ended, in their order, then the one under way. */
export function operationViews(facts: OperationFacts): readonly OperationView[] {
  const { operation, operationTag, progress, outcomes } = facts;
  const past = outcomes.map(viewOfOutcome);
  if (operation === undefined || operationTag === undefined) return past;
  return [...past, viewOf(operation, operationTag, progress)];
}
