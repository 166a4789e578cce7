import type { BlockDeviceStats, BlockLatencyHistogramInfo, BlockStats } from '../../qmp/protocol.ts';

/**
 * What QEMU has counted of one volume since its device is there: requests of the guest, not of jobs. Pure. What QEMU
 * does not show is undefined, and never 0.
 */
export interface VolumeCounters {
  readonly read: OperationCounters;
  readonly write: OperationCounters;
  readonly flush: OperationCounters;
  readonly discard: OperationCounters;
  /** Since the last request; undefined while there was none. */
  readonly idleNs: number | undefined;
  /** Bytes: where the farthest write of the guest has ended. */
  readonly writtenTo: number;
  /** The same of what the format stands on: for qcow2, how much of a device it has come to need. */
  readonly sourceWrittenTo: number | undefined;
  /** Failed requests count in the times. */
  readonly accountsFailed: boolean;
}

/** Requests of one kind. */
export interface OperationCounters {
  /** Those that succeeded. */
  readonly operations: number;
  /** Those that failed, and whose failure the guest was told of. */
  readonly failed: number;
  /** Those that could not be: beyond the end of the disk. */
  readonly invalid: number;
  /** Those that QEMU made one of with another. Flushes never are. */
  readonly merged: number | undefined;
  /** Flushes have none. */
  readonly bytes: number | undefined;
  /** From the moment QEMU took a request to its end, added up. */
  readonly timeNs: number;
  /** Undefined when QEMU has none; it never has one of discards. */
  readonly latency: LatencyHistogram | undefined;
}

/** How many requests took how long, since the histogram was set; one count more than boundaries. */
export interface LatencyHistogram {
  readonly boundariesNs: readonly number[];
  readonly counts: readonly number[];
}

/** Reads one entry of query-blockstats. */
export function countersFrom({ stats, parent }: Pick<BlockStats, 'stats' | 'parent'>): VolumeCounters {
  return {
    read: {
      ...counted(stats, 'rd'),
      ...{ bytes: stats.rd_bytes, merged: stats.rd_merged, latency: histogramFrom(stats.rd_latency_histogram) },
    },
    write: {
      ...counted(stats, 'wr'),
      ...{ bytes: stats.wr_bytes, merged: stats.wr_merged, latency: histogramFrom(stats.wr_latency_histogram) },
    },
    flush: {
      ...counted(stats, 'flush'),
      ...{ bytes: undefined, merged: undefined, latency: histogramFrom(stats.flush_latency_histogram) },
    },
    discard: {
      ...counted(stats, 'unmap'),
      ...{ bytes: stats.unmap_bytes, merged: stats.unmap_merged, latency: undefined },
    },
    idleNs: stats.idle_time_ns,
    writtenTo: stats.wr_highest_offset,
    sourceWrittenTo: parent?.stats.wr_highest_offset,
    accountsFailed: stats.account_failed,
  };
}

function counted(
  stats: BlockDeviceStats,
  kind: 'rd' | 'wr' | 'flush' | 'unmap',
): Pick<OperationCounters, 'operations' | 'failed' | 'invalid' | 'timeNs'> {
  return {
    operations: stats[`${kind}_operations`],
    failed: stats[`failed_${kind}_operations`],
    invalid: stats[`invalid_${kind}_operations`],
    timeNs: stats[`${kind}_total_time_ns`],
  };
}

function histogramFrom(info: BlockLatencyHistogramInfo | undefined): LatencyHistogram | undefined {
  return info && { boundariesNs: info.boundaries, counts: info.bins };
}

const DECADE = [1, 2, 5];
const SHORTEST_NS = 10_000;
const LONGEST_NS = 10_000_000_000;

/** Boundaries of the histograms in ns: 10, 20, 50 us and so on, to 10 s. */
export const LATENCY_BOUNDARIES_NS: readonly number[] = boundaries();

function boundaries(): readonly number[] {
  const found: number[] = [];
  for (let unit = SHORTEST_NS; unit < LONGEST_NS; unit *= 10) found.push(...DECADE.map((step) => step * unit));
  return [...found, LONGEST_NS];
}

/** QEMU counts latencies of this device. */
export function hasHistograms({ read, write, flush }: VolumeCounters): boolean {
  return [read, write, flush].some(({ latency }) => latency !== undefined);
}
