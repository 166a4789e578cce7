import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sleep } from '../../src/base/deadline.ts';
import { Unplugs } from '../../src/volume/unplugs.ts';

const PAUSE_MS = 600_000;

function unplugs(firstMs: number, gone = new AbortController().signal): Unplugs {
  return new Unplugs({ config: { unplug_retry_ms: firstMs, unplug_retry_max_ms: firstMs * 8 }, gone });
}

describe('when a guest is asked for a device again', () => {
  it('at once when it was never asked, and then not before nothing has moved for the pause, which doubles', () => {
    using one = unplugs(PAUSE_MS).begin();
    const seen = (): readonly [number, boolean] => [one.untilDueMs, one.unasked];
    assert.deepEqual(seen(), [0, true]);
    for (const pauseMs of [PAUSE_MS, 2 * PAUSE_MS]) {
      one.asking();
      const [dueMs, unasked] = seen();
      assert.ok(!unasked);
      assert.ok(dueMs > pauseMs / 2 && dueMs <= pauseMs);
    }
  });

  for (const [what, move] of [
    [
      'another has gone',
      (all: Unplugs) => {
        all.begin().gone();
      },
    ],
    [
      'another was asked for',
      (all: Unplugs) => {
        all.begin().asking();
      },
    ],
    [
      'a disk has come up',
      (all: Unplugs) => {
        all.moved();
      },
    ],
  ] as const) {
    it(`the pause begins anew when ${what}`, async () => {
      const all = unplugs(PAUSE_MS);
      using one = all.begin();
      one.asking();
      await sleep(20);
      const before = one.untilDueMs;
      assert.ok(before < PAUSE_MS);
      move(all);
      assert.ok(one.untilDueMs > before);
    });
  }

  it('when nothing moves, it is due', async () => {
    using one = unplugs(1).begin();
    one.asking();
    await sleep(10);
    assert.equal(one.untilDueMs, 0);
  });
});

describe('how many a guest is asked for at once', () => {
  it('the fifth has its turn when one of the four is over, in the order in which they came', async () => {
    const all = unplugs(PAUSE_MS);
    const first = Array.from({ length: 4 }, () => all.begin());
    for (const one of first) await one.turn();
    const came: string[] = [];
    const fifth = all.begin();
    const sixth = all.begin();
    const turns = [fifth.turn().then(() => came.push('fifth')), sixth.turn().then(() => came.push('sixth'))];
    await sleep(20);
    assert.deepEqual(came, []);
    first[2]?.gone();
    await turns[0];
    await sleep(20);
    assert.deepEqual(came, ['fifth']);
    first[0]?.[Symbol.dispose]();
    await turns[1];
    assert.deepEqual(came, ['fifth', 'sixth']);
  });

  it('those that do not go hold nobody up once nothing has moved for a pause', async () => {
    const all = unplugs(10);
    for (let number = 0; number < 4; number += 1) await all.begin().turn();
    await all.begin().turn();
  });

  it('the end of the VM ends the wait', async () => {
    const vm = new AbortController();
    const all = unplugs(PAUSE_MS, vm.signal);
    for (let number = 0; number < 4; number += 1) await all.begin().turn();
    const fifth = all.begin().turn();
    const reason = new Error('gone');
    vm.abort(reason);
    await assert.rejects(fifth, reason);
  });
});
