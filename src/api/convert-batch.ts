import type { ShimError } from '../base/errors.ts';
import type { AttachStep } from '../volume/model/plan.ts';
import type { BatchResult, VolumePlan } from '../volume/batch.ts';
import { volumeMessage } from './convert.ts';
import type { BatchResponse } from '../grpc/generated/qshim/v1/BatchResponse.ts';
import type { PlannedStep } from '../grpc/generated/qshim/v1/PlannedStep.ts';
import type { PlanResponse } from '../grpc/generated/qshim/v1/PlanResponse.ts';
import type { Problem } from '../grpc/generated/qshim/v1/Problem.ts';

/** Domain values of batches and plans to proto messages. */

export function batchMessage(results: readonly BatchResult[]): BatchResponse {
  return {
    results: results.map(({ volumeId, volume, problem }) => ({
      volumeId,
      volume: volume === undefined ? null : volumeMessage(volume),
      problem: problem === undefined ? null : problemMessage(problem),
    })),
  };
}

export function planMessage(plans: readonly VolumePlan[]): PlanResponse {
  return {
    volumes: plans.map(({ volumeId, pciPath, blockGraph, steps, problems }) => ({
      volumeId,
      pciPath,
      blockGraph: [...blockGraph],
      steps: steps.map(stepMessage),
      problems: problems.map(problemMessage),
    })),
  };
}

function stepMessage(step: AttachStep): PlannedStep {
  if (!('command' in step)) return { kind: step.kind };
  return {
    kind: step.kind,
    command: step.command,
    arguments: JSON.stringify(step.arguments),
    undoCommand: step.undo.command,
    undoArguments: JSON.stringify(step.undo.arguments),
  };
}

function problemMessage({ code, reason, message, metadata }: ShimError): Problem {
  return { code, reason, message, metadata: { ...metadata } };
}
