import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { fairShares, isAtLimit, split, wanted, type Claim, type Use } from '../../src/volume/model/shares.ts';

const claim: fc.Arbitrary<Claim> = fc.record({
  share: fc.integer({ min: 1, max: 1000 }),
  wants: fc.oneof(fc.constant(Infinity), fc.double({ min: 0, max: 1e6, noNaN: true })),
});
const claims = fc.array(claim, { minLength: 1, maxLength: 40 });
const total = fc.integer({ min: 40, max: 1e12 });
const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0);

describe('how a budget is split', () => {
  it('together they never have more than the total, and each has at least 1', () => {
    fc.assert(
      fc.property(total, claims, (all, those) => {
        const given = split(all, those);
        assert.ok(sum(given) <= all, `${sum(given)} of ${all}`);
        assert.ok(given.every((one) => Number.isSafeInteger(one) && one >= 1));
      }),
    );
  });

  it('each has what it wants, or its fair share', () => {
    fc.assert(
      fc.property(total, claims, (all, those) => {
        const [given, fair] = [split(all, those), fairShares(all, those)];
        for (const [index, { wants }] of those.entries()) {
          const owed = Math.min(wants, fair[index] ?? 0);
          // But for the part of a whole number, and what is lost in arithmetic of such size.
          assert.ok((given[index] ?? 0) >= owed * (1 - 1e-9) - 1, `${given[index]} for ${owed}`);
        }
      }),
    );
  });

  it('nothing is left', () => {
    fc.assert(
      fc.property(total, claims, (all, those) => {
        assert.equal(sum(split(all, those)), all);
      }),
    );
  });

  it('what one does not want goes to those that want more, by their shares', () => {
    const busy = (share: number): Claim => ({ share, wants: Infinity });
    assert.deepEqual(split(1000, [busy(1), busy(1)]), [500, 500]);
    assert.deepEqual(split(1002, [busy(1), busy(3)]), [251, 751]);
    assert.deepEqual(split(1000, [{ share: 1, wants: 100 }, busy(1), busy(1)]), [100, 450, 450]);
    assert.deepEqual(
      split(900, [
        { share: 1, wants: 0 },
        { share: 2, wants: 0 },
      ]).length,
      2,
    );
  });
});

describe('what one wants', () => {
  const idle: Use = { rate: 0, atLimit: false };

  it('one that is new, or was held back a moment ago, wants all there is', () => {
    assert.equal(wanted([], 100), Infinity);
    assert.equal(wanted([{ rate: 100, atLimit: true }, idle], 100), Infinity);
  });

  it('an idle one keeps a sixteenth of its fair share, and what it used is seen in sixteenths, with room above', () => {
    assert.equal(wanted([{ rate: 100, atLimit: true }, idle, idle], 1600), 200);
    assert.equal(wanted([idle], 1600), 100);
    assert.equal(wanted([{ rate: 790, atLimit: false }], 1600), 1000);
    assert.equal(wanted([{ rate: 780, atLimit: false }], 1600), 1000, 'a little more or less is the same');
  });

  it('an idle one that wakes up is held back at once by what it kept, and so has its fair share next', () => {
    const kept = wanted([idle], 1600);
    assert.ok(isAtLimit(kept, kept));
    assert.equal(wanted([idle, { rate: kept, atLimit: isAtLimit(kept, kept) }], 1600), Infinity);
  });
});
