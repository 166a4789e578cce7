import type { OperationCounters, VolumeCounters } from './counters.ts';

/** The shortest time between two looks that may be asked for. */
export const STATS_PERIOD_MS_MIN = 250;

/** Something that was seen, and when. */
export interface Seen<T> {
  readonly value: T;
  /** Wall clock, ms since 1970: when QEMU's answer came. */
  readonly atMs: number;
  /** The same on the monotonic clock. */
  readonly monotonicMs: number;
}

/** What went on between two looks. Pure: derived, and not QEMU's own. */
export interface Rates {
  readonly intervalMs: number;
  readonly read: OperationRates;
  readonly write: OperationRates;
  readonly flush: OperationRates;
  readonly discard: OperationRates;
}

export interface OperationRates {
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number | undefined;
  /** Of those that ended in between; undefined when none did. */
  readonly meanNs: number | undefined;
  /**
   * Requests under way at a time, by Little's law: the time that those which ended have taken, by the time that has
   * passed. What began and has not ended is not in it.
   */
  readonly queueDepth: number;
}

/** @returns undefined where the two do not follow each other: no time between them, or a counter that went back */
export function ratesBetween(before: Seen<VolumeCounters>, after: Seen<VolumeCounters>): Rates | undefined {
  const intervalMs = after.monotonicMs - before.monotonicMs;
  if (intervalMs <= 0) return undefined;
  const { accountsFailed } = after.value;
  const of = (kind: 'read' | 'write' | 'flush' | 'discard'): OperationRates | undefined =>
    operationRates(before.value[kind], after.value[kind], intervalMs, accountsFailed);
  const [read, write, flush, discard] = [of('read'), of('write'), of('flush'), of('discard')];
  if (read === undefined || write === undefined || flush === undefined || discard === undefined) return undefined;
  return { intervalMs, read, write, flush, discard };
}

function operationRates(
  before: OperationCounters,
  after: OperationCounters,
  intervalMs: number,
  accountsFailed: boolean,
): OperationRates | undefined {
  const operations = after.operations - before.operations;
  const failed = after.failed - before.failed;
  const timeNs = after.timeNs - before.timeNs;
  const bytes = after.bytes === undefined || before.bytes === undefined ? undefined : after.bytes - before.bytes;
  if (operations < 0 || failed < 0 || timeNs < 0 || (bytes ?? 0) < 0) return undefined;
  const timed = operations + (accountsFailed ? failed : 0);
  const perSecond = 1000 / intervalMs;
  return {
    operationsPerSecond: operations * perSecond,
    bytesPerSecond: bytes === undefined ? undefined : bytes * perSecond,
    meanNs: timed === 0 ? undefined : timeNs / timed,
    queueDepth: timeNs / (intervalMs * 1e6),
  };
}
