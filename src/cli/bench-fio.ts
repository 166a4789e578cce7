/** fio, as `qshim bench volume` uses it: what is run, where it can hurt nobody, and what it answers. All pure. */
import { z } from 'zod';
import type { Volume__Output as Volume } from '../grpc/generated/qshim/v1/Volume.ts';
import { visible } from '../base/visible.ts';
import { CliFailure } from './cli-failure.ts';
import { EXIT } from './exit-codes.ts';
import { table } from './table.ts';
import { bytesText, NOTHING } from './values.ts';
import { nanosText } from './stats-view.ts';

export interface Job {
  readonly name: string;
  readonly side: 'read' | 'write';
  readonly options: readonly string[];
}

export const JOBS: readonly Job[] = [
  { name: 'randread 4k', side: 'read', options: ['--rw=randread', '--bs=4k', '--iodepth=16'] },
  { name: 'randwrite 4k', side: 'write', options: ['--rw=randwrite', '--bs=4k', '--iodepth=16'] },
  { name: 'seqread 1M', side: 'read', options: ['--rw=read', '--bs=1M', '--iodepth=4'] },
  { name: 'seqwrite 1M', side: 'write', options: ['--rw=write', '--bs=1M', '--iodepth=4'] },
];

/** What is read and written in the guest. */
export interface Target {
  readonly path: string;
  /** A file of our own in the file system that Attach has mounted; it is removed again. */
  readonly isFile: boolean;
  readonly writes: boolean;
}

/**
 * A file where the volume is mounted; else the disk itself, which is only read unless `writeDevice` says otherwise.
 * @throws CliFailure FAILED_PRECONDITION / BENCH_REFUSED
 */
export function targetOf(volume: Volume, options: { readonly writeDevice: boolean; readonly name: string }): Target {
  const { spec, guestDevice, encryption, evidence } = volume;
  if (volume.state !== 'VOLUME_STATE_ATTACHED') throw refused(`volume ${volume.volumeId} is not attached`);
  const mountPoint = spec?.mount?.mountPoint ?? '';
  if (mountPoint !== '') {
    if (options.writeDevice) throw refused(`the guest has mounted it on ${mountPoint}: its disk is not written to`);
    if (spec?.readOnly !== true && evidence.includes('guest-mount')) {
      return { path: `${mountPoint}/${options.name}`, isFile: true, writes: true };
    }
  }
  const mapped = encryption?.mappedDevice ?? '';
  const path = mapped === '' ? guestDevice : mapped;
  if (path === '') throw refused('its name in the guest is not known');
  if (options.writeDevice && spec?.readOnly === true) throw refused('it is read only');
  return { path, isFile: false, writes: options.writeDevice };
}

/**
 * Who uses a disk in the guest, or a part of it; nothing when nobody does.
 * @param mounts /proc/self/mounts and /proc/swaps
 * @param holders paths of links to what stands on it, below /sys/class/block
 */
export function userOf(device: string, mounts: string, holders: string): string | undefined {
  const isPart = (name: string): boolean => name === device || new RegExp(`^p?[0-9]+$`).test(name.slice(device.length));
  for (const line of mounts.split('\n')) {
    const [name = '', place = ''] = line.split(/\s+/);
    if (name.startsWith(device) && isPart(name)) return `${name} is in use in the guest (${place})`;
  }
  const [holder] = holders.split('\n').filter((line) => line.includes('/holders/'));
  return holder === undefined ? undefined : `something stands on it in the guest (${holder})`;
}

export interface FioLimits {
  readonly seconds: number;
  readonly bytes: number;
}

/** The arguments of one run. Whatever is not to be written fio itself is told to refuse to write. */
export function fioArguments(job: Job, target: Target, { seconds, bytes }: FioLimits): readonly string[] {
  return [
    ...['--name=job', `--filename=${target.path}`, '--direct=1', '--ioengine=libaio', ...job.options],
    ...[`--runtime=${seconds}`, '--time_based', '--output-format=json'],
    ...(target.isFile ? [`--size=${bytes}`] : []),
    ...(target.writes ? [] : ['--readonly']),
  ];
}

const side = z.object({
  iops: z.number(),
  /** Bytes a second; fio 3. */
  bw_bytes: z.number(),
  total_ios: z.number(),
  clat_ns: z.object({ mean: z.number(), percentile: z.record(z.string(), z.number()).optional() }),
});
const output = z.object({ jobs: z.array(z.object({ error: z.number(), read: side, write: side })).min(1) });

/** What one job has come to. */
export interface Result {
  readonly job: string;
  readonly iops: number;
  readonly bytesPerSecond: number;
  readonly meanNs: number;
  /** Undefined where fio has counted none. */
  readonly halfNs: number | undefined;
  readonly mostNs: number | undefined;
}

/** Reads fio's JSON, before which it may have written lines. @throws CliFailure INTERNAL / BENCH_FAILED */
export function resultFrom(job: Job, text: string): Result {
  const begin = text.indexOf('{');
  const parsed = output.safeParse(begin === -1 ? undefined : jsonOf(text.slice(begin)));
  const [first] = parsed.data?.jobs ?? [];
  if (first === undefined) throw failed(`fio's answer for ${job.name} is not understood`);
  if (first.error !== 0) throw failed(`fio ended ${job.name} with error ${first.error}`);
  const { iops, bw_bytes: bytesPerSecond, total_ios: all, clat_ns: took } = first[job.side];
  if (all === 0) throw failed(`fio has done nothing for ${job.name}`);
  const at = (share: string): number | undefined => took.percentile?.[share];
  return {
    ...{ job: job.name, iops, bytesPerSecond, meanNs: took.mean },
    ...{ halfNs: at('50.000000'), mostNs: at('99.000000') },
  };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function resultTable(results: readonly Result[], widthMax: number | undefined): string {
  const rows = results.map(({ job, iops, bytesPerSecond, meanNs, halfNs, mostNs }) => [
    job,
    iops.toFixed(0),
    `${bytesText(Math.round(bytesPerSecond))}/s`,
    ...[meanNs, halfNs, mostNs].map((time) => (time === undefined ? NOTHING : nanosText(time))),
  ]);
  return table(['JOB', 'IOPS', 'RATE', 'MEAN', 'HALF', '99 %'], rows, widthMax);
}

/** @throws never: it is what is thrown */
export function refused(why: string): CliFailure {
  return new CliFailure('FAILED_PRECONDITION', visible(`not measured: ${why}`), {
    reason: 'BENCH_REFUSED',
    exitCode: EXIT.failed,
  });
}

export function failed(why: string): CliFailure {
  return new CliFailure('INTERNAL', visible(why), { reason: 'BENCH_FAILED', exitCode: EXIT.failed });
}
