import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Backoff } from '../../src/base/backoff.ts';
import { Deadline } from '../../src/base/deadline.ts';

function pausesOf(backoff: Backoff, count: number): number[] {
  return Array.from({ length: count }, () => backoff.next());
}

describe('pauses between tries', () => {
  it('are doubled up to the maximum, and begin anew after a reset', () => {
    const backoff = new Backoff(3, 50);
    assert.deepEqual(pausesOf(backoff, 7), [3, 6, 12, 24, 48, 50, 50]);
    backoff.reset();
    assert.deepEqual(pausesOf(backoff, 2), [3, 6]);
  });

  it('never shrink, at most double, and never pass the maximum, whatever the two are', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10_000 }), fc.nat(100_000), (firstMs, moreMs) => {
        const maxMs = firstMs + moreMs;
        const pauses = pausesOf(new Backoff(firstMs, maxMs), 30);
        assert.equal(pauses[0], firstMs);
        for (const [index, pauseMs] of pauses.slice(1).entries()) {
          assert.equal(pauseMs, Math.min((pauses[index] ?? 0) * 2, maxMs));
        }
      }),
    );
  });

  it('are slept; each that was slept counts', async () => {
    const backoff = new Backoff(1, 100);
    await backoff.pause();
    await backoff.pause();
    assert.equal(backoff.next(), 4);
  });

  it(
    'end at the deadline, and with the signal: else these would not end before the test does',
    { timeout: 20_000 },
    async () => {
      const hourMs = 3_600_000;
      await new Backoff(hourMs, hourMs).pause(undefined, Deadline.after(1));
      const stop = new AbortController();
      const pausing = new Backoff(hourMs, hourMs).pause(stop.signal, Deadline.after(hourMs));
      stop.abort(new Error('enough'));
      await assert.rejects(pausing, /enough/);
    },
  );
});
