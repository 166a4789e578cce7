/** What QEMU has counted, as people see it. All pure. */
import { visible } from '../base/visible.ts';
import type { LatencyHistogram__Output as LatencyHistogram } from '../grpc/generated/qshim/v1/LatencyHistogram.ts';
import type { NotLookedAt__Output as NotLookedAt } from '../grpc/generated/qshim/v1/NotLookedAt.ts';
import type { OperationRates__Output as OperationRates } from '../grpc/generated/qshim/v1/OperationRates.ts';
import type { OperationStats__Output as OperationStats } from '../grpc/generated/qshim/v1/OperationStats.ts';
import type { ThrottleState__Output as ThrottleState } from '../grpc/generated/qshim/v1/ThrottleState.ts';
import type { VolumeStats__Output as VolumeStats } from '../grpc/generated/qshim/v1/VolumeStats.ts';
import { table } from './table.ts';
import { bytesText, durationText, enumWord, NOTHING, orNothing, timestampOrNothing } from './values.ts';

const KINDS = ['read', 'write', 'flush', 'discard'] as const;

/** One screen: the busiest first, by the time that its requests have taken, then by their number. */
export function topTable(volumes: readonly VolumeStats[], widthMax: number | undefined): string {
  const head = ['SANDBOX', 'VOLUME', 'READ/s', 'WRITE/s', 'READ IOPS', 'WRITE IOPS'];
  const more = ['READ TIME', 'WRITE TIME', 'DEPTH~', 'FAILED', 'LOOKED AT'];
  const rows = [...volumes].sort(busiestFirst).map((volume) => {
    const { derived, lookedAt } = volume;
    const { read, write } = derived ?? { read: null, write: null };
    return [
      visible(volume.sandboxId),
      visible(volume.volumeId),
      ...[read, write].map((rates) => bytesRate(rates?.bytesPerSecond)),
      ...[read, write].map((rates) => count(rates?.operationsPerSecond)),
      ...[read, write].map((rates) => nanosText(rates?.meanNs)),
      derived === null ? NOTHING : depthOf(volume).toFixed(1),
      failedText(volume),
      timestampOrNothing(lookedAt),
    ];
  });
  return table([...head, ...more], rows, widthMax);
}

function busiestFirst(one: VolumeStats, other: VolumeStats): number {
  const byTime = depthOf(other) - depthOf(one);
  return byTime === 0 ? operationsOf(other) - operationsOf(one) : byTime;
}

function ratesOf({ derived }: VolumeStats): readonly OperationRates[] {
  return KINDS.flatMap((kind) => derived?.[kind] ?? []);
}

function depthOf(volume: VolumeStats): number {
  return ratesOf(volume).reduce((sum, { queueDepth }) => sum + queueDepth, 0);
}

function operationsOf(volume: VolumeStats): number {
  return ratesOf(volume).reduce((sum, { operationsPerSecond }) => sum + operationsPerSecond, 0);
}

function failedText(volume: VolumeStats): string {
  if (volume.lookedAt === null) return NOTHING;
  const failed = KINDS.reduce((sum, kind) => sum + (volume[kind]?.failed ?? 0), 0);
  return volume.health?.failing === true ? `${failed}, failing` : String(failed);
}

/** What could not be looked at now, one line each. */
export function notLookedAtText({ sandboxId, reason, message }: NotLookedAt): string {
  return `${visible(sandboxId)} not looked at: ${visible(message)} (${visible(reason)})`;
}

/** All that is known of one volume. */
export function statsSheet(volume: VolumeStats, widthMax: number | undefined): string {
  const kinds = KINDS.map((kind) => [kind, ...kindCells(volume[kind])]);
  const head = ['', 'OPERATIONS', 'BYTES', 'FAILED', 'INVALID', 'MERGED', 'MEAN', 'HALF', '99 %', 'MOST'];
  const { health } = volume;
  const rows = [
    ['volume', `${visible(volume.volumeId)} of ${visible(volume.sandboxId)}, generation ${volume.generation}`],
    ['state', enumWord('VOLUME_STATE_', volume.state)],
    ['looked at', timestampOrNothing(volume.lookedAt)],
    ['last request', volume.idleNs === undefined ? NOTHING : `${nanosText(volume.idleNs)} ago`],
    ['written to', bytesOrNothing(volume.writtenTo)],
    ['source written to', bytesOrNothing(volume.sourceWrittenTo)],
    ['derived', derivedText(volume)],
    ['limits', volume.detailsLookedAt === null ? NOTHING : throttleText(volume.throttle)],
    ['bitmaps', bitmapsText(volume)],
    ['io status', orNothing(volume.ioStatus)],
    ['errors seen', health === null ? NOTHING : `${health.errors}${health.failing ? ', failing' : ''}`],
  ];
  return `${table([], rows, widthMax)}\n\n${table(head, kinds, widthMax)}`;
}

function kindCells(stats: OperationStats | null): readonly string[] {
  if (stats === null) return Array<string>(9).fill(NOTHING);
  const { operations, bytes, failed, invalid, merged, timeNs, latency } = stats;
  return [
    String(operations),
    bytesOrNothing(bytes),
    String(failed),
    String(invalid),
    merged === undefined ? NOTHING : String(merged),
    nanosText(operations + failed === 0 ? undefined : timeNs / (operations + failed)),
    ...[0.5, 0.99, 1].map((share) => withinText(latency, share)),
  ];
}

/** How long this share of the requests took at most, as far as the boundaries tell. */
export function withinText(latency: LatencyHistogram | null, share: number): string {
  const all = (latency?.counts ?? []).reduce((sum, one) => sum + one, 0);
  if (latency === null || all === 0) return NOTHING;
  let sum = 0;
  const bin = latency.counts.findIndex((one) => (sum += one) >= share * all);
  const upper = latency.boundariesNs[bin];
  return upper === undefined ? `${nanosText(latency.boundariesNs.at(-1))} or more` : `< ${nanosText(upper)}`;
}

function derivedText(volume: VolumeStats): string {
  const { derived } = volume;
  if (derived === null) return NOTHING;
  const { read, write } = derived;
  const side = (name: string, rates: OperationRates | null): string =>
    `${name} ${bytesRate(rates?.bytesPerSecond)}, ${count(rates?.operationsPerSecond)} a second`;
  const over = `over ${durationText(derived.intervalMs)}`;
  return `${side('read', read)}; ${side('write', write)}; ${depthOf(volume).toFixed(1)} at a time; ${over}`;
}

function throttleText(throttle: ThrottleState | null): string {
  if (throttle === null) return 'none';
  const { bps, bpsRd, bpsWr, iops, iopsRd, iopsWr, group } = throttle;
  const rates: readonly (readonly [string, number, boolean])[] = [
    ['bps', bps, true],
    ['bps read', bpsRd, true],
    ['bps write', bpsWr, true],
    ['iops', iops, false],
    ['iops read', iopsRd, false],
    ['iops write', iopsWr, false],
  ];
  const parts = rates.flatMap(([name, limit, isBytes]) =>
    limit === 0 ? [] : [`${name} ${isBytes ? bytesRate(limit) : `${limit}/s`}`],
  );
  return [...parts, ...(group === undefined ? [] : [`group ${visible(group)}`])].join(', ');
}

function bitmapsText({ detailsLookedAt, bitmaps }: VolumeStats): string {
  if (detailsLookedAt === null) return NOTHING;
  if (bitmaps.length === 0) return 'none';
  return bitmaps
    .map(({ name, dirtyBytes, granularity, recording }) => {
      const state = recording ? '' : ', not recording';
      return `${orNothing(name)}: ${bytesText(dirtyBytes)} in grains of ${bytesText(granularity)}${state}`;
    })
    .join('; ');
}

function bytesRate(bytes: number | undefined): string {
  return bytes === undefined ? NOTHING : `${bytesText(Math.round(bytes))}/s`;
}

function bytesOrNothing(bytes: number | undefined): string {
  return bytes === undefined ? NOTHING : bytesText(bytes);
}

function count(value: number | undefined): string {
  return value === undefined ? NOTHING : value.toFixed(value < 10 ? 1 : 0);
}

/** "20 us", "1.5 ms", "10.00 s". */
export function nanosText(nanoseconds: number | undefined): string {
  if (nanoseconds === undefined) return NOTHING;
  return nanoseconds < 1e6 ? `${Math.round(nanoseconds / 1000)} us` : durationText(nanoseconds / 1e6);
}
