import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Deadline, monotonicMs, sleep, waitFor } from '../../src/base/deadline.ts';
import { ShimError } from '../../src/base/errors.ts';

const never = (): Promise<never> => new Promise<never>(() => undefined);

describe('deadline', () => {
  it('counts down to zero, never below', async () => {
    const deadline = Deadline.after(5);
    assert.equal(deadline.totalMs, 5);
    assert.ok(deadline.remainingMs <= 5);
    while (!deadline.expired) await turn();
    assert.equal(deadline.remainingMs, 0);
    assert.equal(Deadline.after(0).expired, true);
    assert.equal(Deadline.after(60_000).expired, false);
  });
});

describe('sleep', () => {
  it('sleeps at least as long as asked, with and without a signal', async () => {
    for (const signal of [undefined, new AbortController().signal]) {
      const start = monotonicMs();
      await sleep(10, signal);
      // A timer may fire up to a millisecond early by this clock.
      assert.ok(monotonicMs() - start >= 9);
    }
  });

  it('ends with the reason of its signal, also of one aborted before', async () => {
    const controller = new AbortController();
    const reason = new ShimError('ABORTED', 'stop', { reason: 'SANDBOX_STOPPING' });
    const sleeping = assert.rejects(sleep(60_000, controller.signal), reason);
    controller.abort(reason);
    await sleeping;
    await assert.rejects(sleep(60_000, controller.signal), reason);
    assert.deepEqual(getEventListeners(controller.signal, 'abort'), []);
  });

  it('a reason that is no error becomes one', async () => {
    const controller = new AbortController();
    const sleeping = assert.rejects(sleep(60_000, controller.signal), { code: 'CANCELLED', cause: 'because' });
    controller.abort('because');
    await sleeping;
  });
});

describe('waitFor', () => {
  it('settles as the work does', async () => {
    assert.equal(await waitFor(Promise.resolve(7), {}), 7);
    assert.equal(await waitFor(Promise.resolve(7), { milliseconds: 60_000, signal: new AbortController().signal }), 7);
    await assert.rejects(waitFor(Promise.reject(new Error('work')), { milliseconds: 60_000 }), /work/);
  });

  it('times out with the given error, or with DEADLINE_EXCEEDED', async () => {
    await assert.rejects(waitFor(never(), { milliseconds: 1 }), { code: 'DEADLINE_EXCEEDED', reason: 'TIMEOUT' });
    await assert.rejects(waitFor(never(), { milliseconds: 1, onTimeout: () => new Error('mine') }), /mine/);
  });

  it('ends with the reason of the signal and leaves no listener behind', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    await waitFor(Promise.resolve(1), { signal });
    assert.deepEqual(getEventListeners(signal, 'abort'), []);
    const reason = new Error('enough');
    const wait = assert.rejects(waitFor(never(), { signal }), reason);
    assert.equal(getEventListeners(signal, 'abort').length, 1);
    controller.abort(reason);
    await wait;
    assert.deepEqual(getEventListeners(signal, 'abort'), []);
    await assert.rejects(waitFor(Promise.resolve(1), { signal }), reason, 'an aborted signal wins');
  });

  it('work that fails when nobody waits for it is no unhandled rejection', async () => {
    const reason = new Error('enough');
    // Node's test runner fails a test of which a rejection is left over.
    await assert.rejects(waitFor(Promise.reject(new Error('work')), { signal: AbortSignal.abort(reason) }), reason);
    await turn();
  });

  it('the work goes on when the wait has ended', async () => {
    const work = Promise.withResolvers<number>();
    await assert.rejects(waitFor(work.promise, { milliseconds: 1 }));
    work.resolve(3);
    assert.equal(await work.promise, 3);
  });
});

describe('a wait that is longer than a timer can be', () => {
  const LONG_MS = 3_000_000_000;

  it('is not over at once', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    setTimeout(() => abort.abort(reason), 50);
    const { signal } = abort;
    await assert.rejects(sleep(LONG_MS, signal), reason);
    const { promise, resolve } = Promise.withResolvers<string>();
    setTimeout(() => resolve('done'), 50);
    assert.equal(await waitFor(promise, { milliseconds: LONG_MS }), 'done');
  });
});
