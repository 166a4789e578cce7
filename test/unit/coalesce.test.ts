import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Coalesced } from '../../src/base/coalesce.ts';

describe('Coalesced', () => {
  it('every caller gets a run that began after its call, and few runs serve many', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 30 }), async (pauses) => {
        let clock = 0;
        let runs = 0;
        const coalesced = new Coalesced(async () => {
          runs += 1;
          const began = ++clock;
          await new Promise((resolve) => setImmediate(resolve));
          return began;
        });
        const waiting: Promise<void>[] = [];
        for (const pause of pauses) {
          for (let turn = 0; turn < pause; turn += 1) await Promise.resolve();
          const called = clock;
          waiting.push(coalesced.run().then((began) => assert.ok(began > called, `${began} > ${called}`)));
        }
        await Promise.all(waiting);
        assert.ok(runs <= pauses.length);
      }),
    );
  });

  it('ten calls at once are two runs', async () => {
    let runs = 0;
    const coalesced = new Coalesced(async () => {
      runs += 1;
      await new Promise((resolve) => setImmediate(resolve));
    });
    await Promise.all(Array.from({ length: 10 }, () => coalesced.run()));
    assert.equal(runs, 2);
  });

  it('a failed run fails its own callers, not those of the next', async () => {
    let fail = true;
    const coalesced = new Coalesced(async () => {
      await new Promise((resolve) => setImmediate(resolve));
      if (!fail) return 'well';
      fail = false;
      throw new Error('first');
    });
    const [first, second, third] = await Promise.allSettled([coalesced.run(), coalesced.run(), coalesced.run()]);
    assert.equal(first.status, 'rejected');
    assert.deepEqual(second, { status: 'fulfilled', value: 'well' });
    assert.deepEqual(third, { status: 'fulfilled', value: 'well' });
  });
});
