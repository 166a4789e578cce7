import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseDuration } from '../../src/base/durations.ts';
import { ShimError } from '../../src/base/errors.ts';
import {
  begun,
  LEASE_MS_MAX,
  leaseFrom,
  leftMs,
  observeLease,
  warningMs,
  type Lease,
} from '../../src/volume/model/lease.ts';

const NOW = Date.parse('2030-01-01T00:00:00Z');
const lengths = fc.integer({ min: 1, max: LEASE_MS_MAX });
const times = fc.integer({ min: 0, max: 2 * NOW });

describe('leases', () => {
  it('whatever the wall clock says, from none to all of it is left, and less later', () => {
    fc.assert(
      fc.property(lengths, times, times, times, (lengthMs, beginMs, oneMs, otherMs) => {
        const lease = begun({ lengthMs }, beginMs);
        const [early = 0, late = 0] = [oneMs, otherMs].sort((a, b) => a - b);
        assert.ok(leftMs(lease, early) >= leftMs(lease, late));
        for (const at of [early, late]) {
          assert.ok(leftMs(lease, at) >= 0 && leftMs(lease, at) <= lengthMs);
          assert.equal(leftMs(lease, at) === 0, at >= beginMs + lengthMs);
        }
        assert.equal(leftMs(lease, beginMs), lengthMs);
        assert.equal(leftMs({ lengthMs }, oneMs), lengthMs, 'one that has not begun is whole');
      }),
    );
  });

  it('its end is told no earlier than half of it before', () => {
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 86_400_000 }), (lengthMs, configuredMs) => {
        const warning = warningMs({ lengthMs }, configuredMs);
        assert.ok(warning <= configuredMs && warning * 2 <= lengthMs);
        assert.ok(warning === configuredMs || warning === Math.floor(lengthMs / 2));
      }),
    );
  });

  it('begins once: with the volume, unless its end was given as a time', () => {
    const byTime = leaseFrom({ leaseMs: 0, untilMs: NOW + 500 }, NOW);
    assert.deepEqual(byTime, { lengthMs: 500, untilMs: NOW + 500 });
    assert.deepEqual(begun({ lengthMs: 500, untilMs: NOW + 500 }, NOW + 100), byTime);
    assert.deepEqual(leaseFrom({ leaseMs: 500, untilMs: undefined }, NOW), { lengthMs: 500 });
    assert.equal(leaseFrom({ leaseMs: 0, untilMs: undefined }, NOW), undefined);
  });

  it('refuses what has passed, what is too long, and both at once', () => {
    for (const requested of [
      { leaseMs: 0, untilMs: NOW },
      { leaseMs: LEASE_MS_MAX + 1, untilMs: undefined },
      { leaseMs: 0, untilMs: NOW + LEASE_MS_MAX + 1 },
      { leaseMs: 1, untilMs: NOW + 1 },
    ]) {
      assert.throws(
        () => leaseFrom(requested, NOW),
        (error) => error instanceof ShimError && error.code === 'INVALID_ARGUMENT',
      );
    }
  });

  it('what was told of one is forgotten with another in its place', () => {
    let facts: { readonly lease: Lease | undefined } = { lease: { lengthMs: 10, untilMs: NOW + 10 } };
    const reasons = [
      { kind: 'lease-ending', leftMs: 5, missed: false },
      { kind: 'lease-ended' },
      { kind: 'lease-held', why: 'x' },
      { kind: 'lease-force', inMs: 7 },
      { kind: 'lease-forced' },
    ] as const;
    const told = reasons.map((input) => {
      const seen = observeLease(facts, input, NOW + 10);
      ({ facts } = seen);
      return seen.cause?.reason;
    });
    assert.deepEqual(told, ['LEASE_ENDING', 'LEASE_ENDED', 'LEASE_HELD', 'LEASE_FORCE_AHEAD', 'LEASE_FORCED']);
    const { lease } = facts;
    assert.deepEqual(lease, { lengthMs: 10, untilMs: NOW + 10, warned: true, endedMs: NOW + 10, forceAtMs: NOW + 17 });
    const given = { lengthMs: 20, untilMs: NOW + 30 };
    const renewed = observeLease(facts, { kind: 'lease-given', lease: given }, NOW);
    assert.deepEqual([renewed.facts.lease, renewed.cause?.reason], [given, 'LEASE_RENEWED']);
    assert.deepEqual(observeLease({ lease: undefined }, { kind: 'lease-ended' }, NOW).facts, { lease: undefined });
  });

  it('durations are read as people write them', () => {
    const read = { '500ms': 500, '30s': 30_000, '10m': 600_000, '1h30m': 5_400_000, '2d': 172_800_000 };
    for (const [text, milliseconds] of Object.entries(read)) assert.equal(parseDuration(text), milliseconds);
    for (const text of ['', '10', 'm', '10 m', '-1s', '1.5h', '1w', '999999999999d']) {
      assert.equal(parseDuration(text), undefined, text);
    }
  });
});
