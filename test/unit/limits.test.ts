import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { isShimError } from '../../src/base/errors.ts';
import {
  completeLimits,
  limitsSeen,
  limitsText,
  throttleOf,
  UNLIMITED,
  type IoLimits,
} from '../../src/volume/model/limits.ts';

const DEVICE = 'vol-3-data';

function refused(limits: Partial<IoLimits>): readonly [string | undefined, string] {
  try {
    completeLimits(limits, 'limits');
  } catch (error) {
    if (isShimError(error)) return [error.metadata['field'], error.message];
    throw error;
  }
  throw new Error(`${JSON.stringify(limits)} was not refused`);
}

describe('limits of I/O', () => {
  const REFUSED: readonly [string, Partial<IoLimits>, string][] = [
    ['a total and reads of its kind', { iops: 10, iopsRead: 5 }, 'limits.iops_read'],
    ['a total and writes of its kind', { bps: 10, bpsWrite: 5 }, 'limits.bps_write'],
    ['a burst without what it bursts from', { bpsMax: 10 }, 'limits.bps_max'],
    ['a burst of another kind than the limit', { bps: 10, iopsMax: 20 }, 'limits.iops_max'],
    ['a burst below the limit', { bpsRead: 10, bpsReadMax: 9 }, 'limits.bps_read_max'],
    ['a length without a burst', { bps: 10, bpsMaxLengthS: 2 }, 'limits.bps_max_length_s'],
    ['a burst of more than can be counted', { bps: 10, bpsMax: 1e15, bpsMaxLengthS: 2 }, 'limits.bps_max_length_s'],
    ['more than QEMU counts', { bps: 1e15 + 1 }, 'limits.bps'],
    ['what is no number any more', { iops: 2 ** 60 }, 'limits.iops'],
    ['a size of operations that are not limited', { bps: 10, iopsSize: 4096 }, 'limits.iops_size'],
    ['a group of nothing', { group: 'a' }, 'limits.group'],
    ['a group with a name that is none', { bps: 10, group: 'a/b' }, 'limits.group'],
  ];
  for (const [what, limits, field] of REFUSED) {
    it(`${what}: refused by the name of the field`, () => assert.equal(refused(limits)[0], field));
  }

  it('a burst without a length lasts a second; nothing at all is no limit', () => {
    assert.deepEqual(completeLimits({ bps: 1, bpsMax: 1 }, 'limits'), {
      ...UNLIMITED,
      ...{ bps: 1, bpsMax: 1, bpsMaxLengthS: 1 },
    });
    assert.deepEqual(completeLimits({}, 'limits'), UNLIMITED);
    assert.equal(limitsText(UNLIMITED), 'no limit');
  });

  const rate = fc.integer({ min: 1, max: 1e9 });
  const burst = fc.option(fc.record({ more: fc.nat(1e6), length: fc.integer({ min: 1, max: 1000 }) }));
  const one = (kind: string) =>
    fc.tuple(rate, burst).map(([base, extra]) => ({
      [kind]: base,
      ...(extra === null ? {} : { [`${kind}Max`]: base + extra.more, [`${kind}MaxLengthS`]: extra.length }),
    }));
  const kinds = (total: string) =>
    fc.oneof(
      fc.constant({}),
      one(total),
      one(`${total}Read`),
      one(`${total}Write`),
      fc.tuple(one(`${total}Read`), one(`${total}Write`)).map(([read, write]) => ({ ...read, ...write })),
    );
  const limits = fc
    .tuple(kinds('iops'), kinds('bps'), fc.constantFrom('', 'a', 'vol-3-data'))
    .map(([iops, bps, group]) => {
      const values = { ...iops, ...bps };
      return { ...UNLIMITED, ...values, group: Object.keys(values).length === 0 ? '' : group };
    });

  it('what QEMU is told is read back as what was asked for', () => {
    fc.assert(
      fc.property(limits, (asked) => {
        assert.deepEqual(completeLimits(asked, 'limits'), asked);
        const told = throttleOf(asked, DEVICE);
        assert.deepEqual(limitsSeen(told), asked);
        // It fills in what was left out, and names no group of a disk without limits.
        assert.deepEqual(
          limitsSeen({ ...told, iops_max_length: told.iops_max_length ?? 1, bps_rd_max: told.bps_rd_max ?? 0 }),
          asked,
        );
      }),
    );
  });

  it("QEMU's name of a group is never that of a volume that has none", () => {
    assert.equal(throttleOf({ ...UNLIMITED, bps: 1 }, DEVICE).group, DEVICE);
    assert.notEqual(throttleOf({ ...UNLIMITED, bps: 1, group: DEVICE }, 'vol-4-x').group, DEVICE);
  });

  it('the group is always named, since QEMU would else change the one that the disk is in', () => {
    fc.assert(fc.property(limits, (asked) => assert.ok(throttleOf(asked, DEVICE).group)));
  });
});
