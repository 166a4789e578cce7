import type { ShimError } from '../base/errors.ts';
import type { BatchResult, VolumePlan } from '../volume/batch.ts';
import type { QemuObject } from '../volume/model/objects.ts';
import type { PlanStep } from '../volume/plan.ts';
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
      steps: steps.flatMap(stepMessages),
      problems: problems.map(problemMessage),
    })),
  };
}

/** The steps as the API names them: those of one kind that belong together are one, and a mount is one of its own. */
function stepMessages(step: PlanStep): readonly PlannedStep[] {
  switch (step.kind) {
    case 'add':
      return [addMessage(step.object)];
    case 'release':
      return [{ kind: 'remove-secrets' }];
    case 'open-in-guest':
      return [{ kind: step.kind }, ...(step.mount === undefined ? [] : [{ kind: 'mount' }])];
    case 'limit':
      return [{ kind: step.kind, command: 'block_set_io_throttle', arguments: JSON.stringify(step.arguments) }];
    case 'fetch-key':
    case 'await-driver':
    case 'find-in-guest':
    case 'mount':
      return [{ kind: step.kind }];
  }
}

function addMessage({ step, add, remove }: QemuObject): PlannedStep {
  return {
    kind: step,
    command: add.command,
    arguments: JSON.stringify(add.arguments),
    undoCommand: remove.command,
    undoArguments: JSON.stringify(remove.arguments),
  };
}

function problemMessage({ code, reason, message, metadata }: ShimError): Problem {
  return { code, reason, message, metadata: { ...metadata } };
}
