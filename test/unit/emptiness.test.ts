import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { emptinessOf, seenOfL2Entry, type Seen } from '../../src/volume/model/emptiness.ts';

describe('emptiness', () => {
  it('is zero only when each part is; data decides; what nobody can tell leaves it open', () => {
    const part = fc.constantFrom<Seen>('zero', 'data', 'unknown');
    fc.assert(
      fc.property(fc.array(part), (parts) => {
        const whole = emptinessOf(parts);
        assert.equal(
          whole === 'zero',
          parts.every((one) => one === 'zero'),
        );
        assert.equal(whole === 'data', parts.includes('data'));
        assert.notEqual(whole, 'noise');
      }),
    );
  });

  const HOST_OFFSET = 0x50000n;
  const COPIED = 1n << 63n;
  const COMPRESSED = 1n << 62n;
  for (const [what, entry, version, seen] of [
    ['no cluster', 0n, 3, 'zero'],
    ['no cluster, in the old version', 0n, 2, 'zero'],
    ['zeroes without a place', 1n, 3, 'zero'],
    ['zeroes with a place kept for later', COPIED | HOST_OFFSET | 1n, 3, 'zero'],
    ['a cluster with a place', COPIED | HOST_OFFSET, 3, 'unknown'],
    ['bit 0 in the old version, where it is reserved', HOST_OFFSET | 1n, 2, 'unknown'],
    ['a compressed cluster', COMPRESSED | HOST_OFFSET, 3, 'unknown'],
    ['a compressed cluster whose place ends in a set bit', COMPRESSED | 1n, 3, 'unknown'],
  ] as const) {
    it(`of an L2 entry: ${what}`, () => {
      assert.equal(seenOfL2Entry(entry, version), seen);
    });
  }
});
