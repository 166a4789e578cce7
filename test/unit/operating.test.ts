import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  NO_OPERATION,
  observeOperation,
  operationViews,
  type OperationFacts,
  type OperationInput,
} from '../../src/volume/model/operating.ts';
import { OUTCOMES_MAX } from '../../src/volume/model/operation.ts';

const RESIZE = { kind: 'resize', sizeBytes: 1024, timeoutMs: 1 } as const;
const DONE = { kind: 'operation-ended', cancelled: false, problem: undefined } as const;

function begun(id: string, facts: OperationFacts = NO_OPERATION): OperationFacts {
  return observeOperation(facts, { kind: 'operation-begun', operation: RESIZE, tag: { id, startedMs: 1 } }, 1).facts;
}

function reasons(facts: OperationFacts, inputs: readonly OperationInput[]): readonly (string | undefined)[] {
  let now = facts;
  return inputs.map((input) => {
    const { facts: next, cause } = observeOperation(now, input, 2);
    now = next;
    return cause?.reason;
  });
}

const progress = (phase: string, current: number, total: number): OperationInput => ({
  kind: 'operation-progress',
  progress: { phase, current, total },
});

describe('what is known of operations', () => {
  it('progress is told when it is another phase or a twentieth further, and kept always', () => {
    const inputs = [
      progress('copying', 0, 100),
      progress('copying', 4, 100),
      progress('copying', 5, 100),
      progress('copying', 5, 100),
      progress('pivoting', 5, 100),
    ];
    const [first, small, step, same, phase] = reasons(begun('a'), inputs);
    assert.deepEqual([first, step, phase], Array(3).fill('OPERATION_PROGRESS'));
    assert.deepEqual([small, same], [undefined, undefined]);
    const { facts } = observeOperation(begun('a'), progress('copying', 3, 100), 2);
    assert.deepEqual(operationViews(facts)[0]?.progress, { phase: 'copying', current: 3, total: 100 });
  });

  it('whoever asks twice for its cancellation is told of once', () => {
    const cancel = { kind: 'operation-cancel' } as const;
    assert.deepEqual(reasons(begun('a'), [cancel, cancel]), ['OPERATION_PROGRESS', undefined]);
    assert.deepEqual(reasons(NO_OPERATION, [cancel, DONE]), [undefined, undefined]);
  });

  it('how it has ended is told and kept: done, failed, cancelled', () => {
    const problem = { code: 'ABORTED', reason: 'X', message: 'm', metadata: {} };
    const cancelled = { ...DONE, cancelled: true };
    for (const [input, reason] of [
      [DONE, 'OPERATION_DONE'],
      [{ ...DONE, problem }, 'OPERATION_FAILED'],
      [cancelled, 'OPERATION_CANCELLED'],
    ] as const) {
      const { facts, cause } = observeOperation(begun('a'), input, 9);
      assert.equal(cause?.reason, reason);
      assert.equal(facts.operation, undefined);
      const [view] = operationViews(facts);
      assert.deepEqual(view?.ended, { endedMs: 9, cancelled: input.cancelled, problem: input.problem });
    }
  });

  it('of those that have ended the newest are kept, in their order', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 30 }), (count) => {
        let facts = NO_OPERATION;
        for (let nr = 0; nr < count; nr += 1) facts = observeOperation(begun(String(nr), facts), DONE, nr).facts;
        const ids = operationViews(begun('last', facts)).map(({ id }) => id);
        const all = [...Array(count).keys()].map(String);
        assert.deepEqual(ids, [...all.slice(-OUTCOMES_MAX), 'last']);
      }),
    );
  });
});
