import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Samples, isMet, median, quantile, ratio, sectionText } from '../bench/figures.ts';

describe('figures of the benchmark', () => {
  it('median and quantiles are values that were measured', () => {
    assert.equal(median([5, 1, 3]), 3);
    assert.equal(quantile([1, 2, 3, 4], 0.99), 4);
    assert.equal(median([]), Number.NaN);
    fc.assert(
      fc.property(
        fc.array(fc.integer(), { minLength: 1 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, share) => {
          const value = quantile(values, share);
          assert.ok(values.includes(value));
          assert.ok(values.filter((one) => one <= value).length >= share * values.length);
        },
      ),
    );
  });

  it('a ratio is held against its bar', () => {
    const samples = new Samples();
    samples.add('attach', 'qshim', 23);
    samples.add('attach', 'floor', 20);
    const at = (kind: 'at most' | 'at least', value: number) =>
      isMet(ratio(samples.row('attach'), 'qshim', 'floor', { kind, value }));
    assert.deepEqual([at('at most', 1.15), at('at most', 1.1), at('at least', 1.2)], [true, false, false]);
    assert.equal(isMet(ratio(samples.row('attach'), 'qshim', 'floor')), undefined);
    assert.equal(isMet(ratio(samples.row('detach'), 'qshim', 'floor', { kind: 'at most', value: 1 })), undefined);
  });

  it('a table has a column for everybody, and names what was missed', () => {
    const samples = new Samples();
    samples.add('attach', 'qshim', 40);
    samples.add('attach', 'floor', 20);
    samples.add('memory', 'qshim', 1000, 'KiB');
    const missed = ratio(samples.row('attach'), 'qshim', 'floor', { kind: 'at most', value: 1.15 });
    const text = sectionText({ name: 'x', title: 'X', rows: samples.rows(), ratios: [missed], notes: ['a note'] });
    assert.equal(
      text,
      [
        '### X',
        '',
        '| median (p99) | qshim | floor |',
        '|---|---|---|',
        '| attach, ms | 40.0 | 20.0 |',
        '| memory, KiB | 1000 |  |',
        '',
        '- attach: qshim / floor: 2.00 (at most 1.15, **missed**)',
        '- a note',
        '',
      ].join('\n'),
    );
  });
});
