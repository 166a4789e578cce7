import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { BlockInfo, BlockStats } from '../../src/qmp/protocol.ts';
import { countersFrom, hasHistograms, LATENCY_BOUNDARIES_NS } from '../../src/volume/stats/counters.ts';
import { detailsFrom } from '../../src/volume/stats/details.ts';
import { ratesBetween, type Seen } from '../../src/volume/stats/rates.ts';

/** What QEMU shows of volumes, from its real answers, and what is derived from two of them. */

interface Recorded {
  readonly 'query-blockstats': readonly BlockStats[];
  readonly 'query-block': readonly BlockInfo[];
}

/** A disk that the firmware has read one sector of, with limits, a bitmap and histograms. */
function recorded(version: string): { readonly stats: BlockStats; readonly block: BlockInfo } {
  const path = join(import.meta.dirname, `../fixtures/blockstats-qemu-${version}.json`);
  const answers = JSON.parse(readFileSync(path, 'utf8')) as Recorded;
  const [stats] = answers['query-blockstats'];
  const [block] = answers['query-block'];
  assert.ok(stats !== undefined && block !== undefined);
  return { stats, block };
}

for (const version of ['7.2', '10.0']) {
  describe(`answers of QEMU ${version}`, () => {
    it('counters', () => {
      const { stats } = recorded(version);
      const counters = countersFrom(stats);
      const { latency, timeNs, ...read } = counters.read;
      assert.deepEqual(read, { operations: 1, failed: 0, invalid: 0, merged: 0, bytes: 512 });
      assert.equal(timeNs, stats.stats.rd_total_time_ns);
      assert.ok(timeNs > 0);
      assert.deepEqual(latency?.boundariesNs, [10_000, 100_000, 1_000_000, 10_000_000]);
      assert.equal(
        latency.counts.reduce((sum, count) => sum + count, 0),
        1,
      );
      assert.equal(latency.counts.length, latency.boundariesNs.length + 1);
      assert.equal(counters.write.bytes, 0);
      // What a flush and a discard do not have is not 0.
      assert.deepEqual([counters.flush.bytes, counters.flush.merged], [undefined, undefined]);
      assert.equal(counters.discard.latency, undefined);
      assert.equal(counters.idleNs, stats.stats.idle_time_ns);
      assert.deepEqual([counters.writtenTo, counters.sourceWrittenTo, counters.accountsFailed], [0, 0, true]);
      assert.ok(hasHistograms(counters));
    });

    it('a device that nothing was asked of has no idle time, and one without histograms none', () => {
      const { stats } = recorded(version);
      const { idle_time_ns: _idle, rd_latency_histogram: _rd, ...rest } = stats.stats;
      const { wr_latency_histogram: _wr, flush_latency_histogram: _flush, ...bare } = rest;
      const counters = countersFrom({ stats: bare });
      assert.deepEqual([counters.idleNs, counters.read.latency, counters.sourceWrittenTo], Array(3).fill(undefined));
      assert.equal(hasHistograms(counters), false);
    });

    it('limits and bitmaps', () => {
      const { block } = recorded(version);
      const details = detailsFrom(block);
      assert.ok(details?.throttle !== undefined);
      const { bps, iops, iops_rd, iops_rd_max, iops_rd_max_length, bps_max, group } = details.throttle;
      assert.deepEqual([bps, iops, iops_rd, iops_rd_max, iops_rd_max_length], [4_194_304, 0, 100, 200, 2]);
      assert.deepEqual([bps_max, group], [undefined, 'shared']);
      const [bitmap] = details.bitmaps;
      assert.deepEqual([bitmap?.name, bitmap?.count, bitmap?.granularity, bitmap?.recording], ['b0', 0, 65_536, true]);
      assert.equal(details.ioStatus, 'ok');
    });

    it('no limit is none, and no medium is nothing', () => {
      const { block } = recorded(version);
      assert.ok(block.inserted !== undefined);
      const unlimited = { ...block.inserted, bps: 0, iops_rd: 0 };
      assert.equal(detailsFrom({ ...block, inserted: unlimited })?.throttle, undefined);
      const { inserted: _inserted, ...empty } = block;
      assert.equal(detailsFrom(empty), undefined);
    });
  });
}

describe('boundaries of the histograms', () => {
  it('rise from 10 us to 10 s, three in each decade, as QEMU takes them', () => {
    assert.deepEqual(LATENCY_BOUNDARIES_NS.slice(0, 4), [10_000, 20_000, 50_000, 100_000]);
    assert.equal(LATENCY_BOUNDARIES_NS.at(-1), 10_000_000_000);
    assert.equal(LATENCY_BOUNDARIES_NS.length, 19);
    // QEMU refuses those that do not rise (block_latency_histogram_set).
    assert.ok(LATENCY_BOUNDARIES_NS.every((value, index) => value > (LATENCY_BOUNDARIES_NS[index - 1] ?? 0)));
  });
});

describe('rates between two looks', () => {
  const { stats } = recorded('7.2');
  const seen = (monotonicMs: number, changed: Partial<BlockStats['stats']>): Seen<ReturnType<typeof countersFrom>> => ({
    value: countersFrom({ stats: { ...stats.stats, ...changed } }),
    atMs: 1_000_000 + monotonicMs,
    monotonicMs,
  });
  const first = seen(1000, {
    wr_operations: 10,
    wr_bytes: 40_960,
    wr_total_time_ns: 5_000_000,
    failed_wr_operations: 0,
  });
  const later = { wr_operations: 30, wr_bytes: 122_880, wr_total_time_ns: 1_005_000_000, failed_wr_operations: 5 };

  it('by the time between them, and not by the clock on the wall', () => {
    const rates = ratesBetween({ ...first, atMs: 0 }, seen(3000, later));
    assert.deepEqual(rates?.write, {
      operationsPerSecond: 10,
      bytesPerSecond: 40_960,
      // One second of requests, of 20 that succeeded and 5 that failed; in two seconds half a request at a time.
      meanNs: 40_000_000,
      queueDepth: 0.5,
    });
    assert.equal(rates.intervalMs, 2000);
  });

  it('failed requests are in the mean only where QEMU has their times', () => {
    const rates = ratesBetween(first, seen(3000, { ...later, account_failed: false }));
    assert.equal(rates?.write.meanNs, 50_000_000);
  });

  it('of nothing: no mean, and flushes have no bytes', () => {
    const rates = ratesBetween(first, seen(3000, { ...later, wr_operations: 10, failed_wr_operations: 0 }));
    assert.equal(rates?.write.meanNs, undefined);
    assert.deepEqual([rates?.flush.bytesPerSecond, rates?.flush.operationsPerSecond], [undefined, 0]);
  });

  it('none where a counter went back, or no time has passed', () => {
    assert.equal(ratesBetween(seen(1000, later), { ...first, monotonicMs: 2000 }), undefined);
    assert.equal(ratesBetween(first, first), undefined);
  });
});
