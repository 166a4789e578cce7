import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { BoundedMutex } from '../../src/base/mutex.ts';

describe('bounded mutex', () => {
  it('one at a time, first come first served, callers and the daemon alike', async () => {
    const mutex = new BoundedMutex('m', 10);
    const order: number[] = [];
    let inside = 0;
    const work = async (number: number): Promise<void> => {
      using _held = await (number % 2 === 0 ? mutex.acquire() : mutex.acquireForCaller());
      inside += 1;
      assert.equal(inside, 1, 'nobody else is inside');
      await turn();
      order.push(number);
      inside -= 1;
    };
    await Promise.all([0, 1, 2, 3, 4, 5].map(work));
    assert.deepEqual(order, [0, 1, 2, 3, 4, 5]);
    assert.equal(mutex.locked, false);
  });

  it('a block that throws frees it', async () => {
    const mutex = new BoundedMutex('m', 1);
    const fail = async (): Promise<void> => {
      using _held = await mutex.acquire();
      assert.equal(mutex.locked, true);
      throw new Error('inside');
    };
    await assert.rejects(fail(), /inside/);
    assert.equal(mutex.locked, false);
  });

  it('too many callers are refused at once; the daemon itself never is', async () => {
    const mutex = new BoundedMutex('volume v', 2);
    const held = await mutex.acquire();
    const waiting = [mutex.acquireForCaller(), mutex.acquireForCaller()];
    await assert.rejects(mutex.acquireForCaller(), {
      code: 'RESOURCE_EXHAUSTED',
      reason: 'QUEUE_FULL',
      metadata: { queue: 'volume v', max: '2' },
    });
    const own = mutex.acquire();
    held[Symbol.dispose]();
    for (const wait of [...waiting, own]) (await wait)[Symbol.dispose]();
    assert.equal(mutex.locked, false);
  });

  it('a caller that leaves does not get its turn, and holds up nobody', async () => {
    const mutex = new BoundedMutex('m', 2);
    const held = await mutex.acquire();
    const leaving = new AbortController();
    const left = mutex.acquireForCaller({ signal: leaving.signal });
    const late = mutex.acquireForCaller({ milliseconds: 1, onTimeout: () => new Error('too late') });
    leaving.abort(new Error('gone'));
    await assert.rejects(left, /gone/);
    await assert.rejects(late, /too late/);
    await assert.rejects(mutex.acquireForCaller(), { reason: 'QUEUE_FULL' }, 'their places are still in the queue');
    const next = mutex.acquire();
    held[Symbol.dispose]();
    (await next)[Symbol.dispose]();
    assert.equal(mutex.locked, false);
  });

  it('a place in the queue is free again once its caller has the mutex', async () => {
    const mutex = new BoundedMutex('m', 1);
    for (let round = 0; round < 3; round += 1) {
      using _held = await mutex.acquireForCaller();
      const next = mutex.acquireForCaller();
      await assert.rejects(mutex.acquireForCaller(), { reason: 'QUEUE_FULL' });
      _held[Symbol.dispose]();
      (await next)[Symbol.dispose]();
    }
  });

  it('freeing twice does not let two in', async () => {
    const mutex = new BoundedMutex('m', 1);
    const first = await mutex.acquire();
    first[Symbol.dispose]();
    using _second = await mutex.acquire();
    first[Symbol.dispose]();
    assert.equal(mutex.locked, true);
  });
});
