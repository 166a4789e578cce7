import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { whyLate } from '../../src/sandbox/why-late.ts';

function late(reason: 'GUEST_HOLDS_VOLUME' | 'GUEST_NOT_ASKED' | 'OPERATION_IN_PROGRESS'): ShimError {
  return new ShimError('DEADLINE_EXCEEDED', `because of ${reason}`, { reason, metadata: { volumeId: 'a' } });
}

function reasonOf(error: unknown): string {
  assert.ok(error instanceof ShimError);
  return error.reason;
}

describe('why a detach is late', () => {
  const quick = { id: 'one', unresponsive: false, link: { owedMs: 10 } };
  const slow = { ...quick, link: { owedMs: 600 } };
  const silent = { ...quick, unresponsive: true, link: { owedMs: 0 } };

  it('the guest, as long as QEMU answers', () => {
    assert.equal(reasonOf(whyLate(quick, late('GUEST_HOLDS_VOLUME'), 1000)), 'GUEST_HOLDS_VOLUME');
  });

  it('QEMU, when it has owed an answer for half of the time, or is known to be silent', () => {
    for (const sandbox of [slow, silent]) {
      const error = whyLate(sandbox, late('GUEST_HOLDS_VOLUME'), 1000);
      assert.equal(reasonOf(error), 'QEMU_UNRESPONSIVE');
      assert.match(String(error), /and qshim goes on: because of GUEST_HOLDS_VOLUME/);
    }
  });

  it('a refusal, or another operation, is told as it is: after a refusal nothing goes on', () => {
    for (const reason of ['GUEST_NOT_ASKED', 'OPERATION_IN_PROGRESS'] as const) {
      const error = late(reason);
      for (const sandbox of [quick, slow, silent]) assert.equal(whyLate(sandbox, error, 1000), error);
    }
  });

  it('what is no question of time stays as it is', () => {
    const error = new ShimError('FAILED_PRECONDITION', 'in use', { reason: 'VOLUME_BUSY' });
    assert.equal(whyLate(slow, error, 1000), error);
  });
});
