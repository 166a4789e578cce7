import type { VolumeStats } from '../grpc/generated/qshim/v1/VolumeStats.ts';
import type { DerivedRates } from '../grpc/generated/qshim/v1/DerivedRates.ts';
import type { DirtyBitmap } from '../grpc/generated/qshim/v1/DirtyBitmap.ts';
import type { OperationRates as OperationRatesMessage } from '../grpc/generated/qshim/v1/OperationRates.ts';
import type { OperationStats } from '../grpc/generated/qshim/v1/OperationStats.ts';
import type { ThrottleState } from '../grpc/generated/qshim/v1/ThrottleState.ts';
import type { OperationCounters, VolumeCounters } from '../volume/stats/counters.ts';
import type { VolumeDetails } from '../volume/stats/details.ts';
import type { VolumeSeen } from '../volume/stats/looks.ts';
import { ratesBetween, type OperationRates, type Rates, type Seen } from '../volume/stats/rates.ts';
import type { VolumeSnapshot } from '../volume/volume.ts';
import { healthMessage, volumeStateMessage } from './convert.ts';
import { timestamp } from './timestamp.ts';

/** @param before the look that what went on is derived from; undefined: there is none */
export function statsMessage(
  volume: VolumeSnapshot,
  seen: VolumeSeen | undefined,
  before: Seen<VolumeCounters> | undefined,
): VolumeStats {
  const { sandboxId, volumeId, generation, state, health } = volume;
  return {
    ...{ sandboxId, volumeId, generation },
    state: volumeStateMessage(state.state),
    health: healthMessage(health),
    ...(seen === undefined ? {} : seenMessage(seen, before)),
  };
}

function seenMessage({ counters, details }: VolumeSeen, before: Seen<VolumeCounters> | undefined): VolumeStats {
  const { value, atMs } = counters;
  const rates = before && ratesBetween(before, counters);
  return {
    lookedAt: timestamp(atMs),
    read: operationMessage(value.read),
    write: operationMessage(value.write),
    flush: operationMessage(value.flush),
    discard: operationMessage(value.discard),
    ...present({ idleNs: value.idleNs, sourceWrittenTo: value.sourceWrittenTo }),
    writtenTo: value.writtenTo,
    accountsFailed: value.accountsFailed,
    ...(rates === undefined ? {} : { derived: ratesMessage(rates) }),
    ...(details === undefined ? {} : detailsMessage(details)),
  };
}

function operationMessage({
  operations,
  failed,
  invalid,
  timeNs,
  latency,
  merged,
  bytes,
}: OperationCounters): OperationStats {
  return {
    ...{ operations, failed, invalid, timeNs },
    ...present({ merged, bytes }),
    ...(latency === undefined
      ? {}
      : { latency: { boundariesNs: [...latency.boundariesNs], counts: [...latency.counts] } }),
  };
}

function ratesMessage({ intervalMs, read, write, flush, discard }: Rates): DerivedRates {
  const of = ({ operationsPerSecond, queueDepth, bytesPerSecond, meanNs }: OperationRates): OperationRatesMessage => ({
    ...{ operationsPerSecond, queueDepth },
    ...present({ bytesPerSecond, meanNs }),
  });
  return { intervalMs, read: of(read), write: of(write), flush: of(flush), discard: of(discard) };
}

function detailsMessage({ value, atMs }: Seen<VolumeDetails>): VolumeStats {
  const { throttle, bitmaps, ioStatus } = value;
  return {
    detailsLookedAt: timestamp(atMs),
    ...(throttle === undefined ? {} : { throttle: throttleMessage(throttle) }),
    bitmaps: bitmaps.map(
      ({ name = '', count, granularity, recording, busy, persistent, inconsistent = false }): DirtyBitmap => ({
        ...{ name, dirtyBytes: count, granularity, recording, busy, persistent, inconsistent },
      }),
    ),
    ...present({ ioStatus }),
  };
}

function throttleMessage(shown: NonNullable<VolumeDetails['throttle']>): ThrottleState {
  const { bps, bps_rd: bpsRd, bps_wr: bpsWr, iops, iops_rd: iopsRd, iops_wr: iopsWr } = shown;
  return {
    ...{ bps, bpsRd, bpsWr, iops, iopsRd, iopsWr },
    ...present({
      bpsMax: shown.bps_max,
      bpsRdMax: shown.bps_rd_max,
      bpsWrMax: shown.bps_wr_max,
      iopsMax: shown.iops_max,
      iopsRdMax: shown.iops_rd_max,
      iopsWrMax: shown.iops_wr_max,
      bpsMaxLength: shown.bps_max_length,
      bpsRdMaxLength: shown.bps_rd_max_length,
      bpsWrMaxLength: shown.bps_wr_max_length,
      iopsMaxLength: shown.iops_max_length,
      iopsRdMaxLength: shown.iops_rd_max_length,
      iopsWrMaxLength: shown.iops_wr_max_length,
      iopsSize: shown.iops_size,
      group: shown.group,
    }),
  };
}

/** Without the members that are undefined: the message then has none of them, and not 0. */
function present<T extends object>(members: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  // Those that stay have their own types.
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as ReturnType<
    typeof present<T>
  >;
}
