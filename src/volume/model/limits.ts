import { z } from 'zod';
import { invalidArgument } from '../../base/errors.ts';
import type { IoThrottle } from '../../qmp/protocol.ts';

/**
 * How much a guest may ask of a volume's disk in a second. Pure: what is refused, and how it is said to QEMU.
 *
 *     request ─▶ completeLimits ─▶ IoLimits ─ throttleOf ─▶ block_set_io_throttle
 *                                     ▲
 *                                     └─ limitsSeen ◀─ query-block `inserted`
 */

const LIMITED = ['iops', 'iopsRead', 'iopsWrite', 'bps', 'bpsRead', 'bpsWrite'] as const;
type Limited = (typeof LIMITED)[number];
type RateField = Limited | `${Limited}Max` | `${Limited}MaxLengthS`;
type Rates = { readonly [F in RateField]: number };

const RATE_FIELDS: readonly RateField[] = LIMITED.flatMap((kind) => [kind, `${kind}Max`, `${kind}MaxLengthS`] as const);

const rate = z.int().min(0);
const ratesShape = Object.fromEntries(RATE_FIELDS.map((field) => [field, rate])) as Record<RateField, typeof rate>;

/** As the journal keeps it. */
export const ioLimitsSchema = z
  .object({
    ...ratesShape,
    iopsSize: rate,
    group: z.string(),
  })
  .readonly();

/**
 * Operations and bytes a second; `Max` for as long as `MaxLengthS` seconds after a quiet time. 0 is no limit, and no
 * burst. Requests count once for each `iopsSize` bytes, 0: once. Volumes of a sandbox that name the same group share
 * what it says; empty: the volume has it alone.
 */
export type IoLimits = z.infer<typeof ioLimitsSchema>;

/** QEMU's THROTTLE_VALUE_MAX. */
const VALUE_MAX = 1_000_000_000_000_000;
const GROUP_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** As the API and the command line call it: "bpsReadMaxLengthS" is bps_read_max_length_s. */
function apiName(field: string): string {
  return field.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

export const UNLIMITED: IoLimits = {
  ...(Object.fromEntries(RATE_FIELDS.map((field) => [field, 0])) as Rates),
  iopsSize: 0,
  group: '',
};

/**
 * Fills in what was left out, and refuses what QEMU would refuse (util/throttle.c, throttle_is_valid).
 * @param field what the request calls them: "limits", "spec.limits"
 * @returns UNLIMITED when nothing is limited
 * @throws ShimError INVALID_ARGUMENT that names the field
 */
export function completeLimits(requested: Partial<IoLimits>, field: string): IoLimits {
  const limits = { ...UNLIMITED, ...requested };
  const refuse = (name: string, problem: string): never => {
    throw invalidArgument(`${field}.${apiName(name)}`, limits[name as keyof IoLimits], problem);
  };
  for (const name of [...RATE_FIELDS, 'iopsSize'] as const) {
    const value = limits[name];
    if (!Number.isSafeInteger(value) || value < 0 || value > VALUE_MAX) refuse(name, `must be from 0 to ${VALUE_MAX}`);
  }
  const limited = LIMITED.filter((kind) => limits[kind] > 0);
  for (const total of ['iops', 'bps'] as const) {
    const part = limited.find((kind) => kind === `${total}Read` || kind === `${total}Write`);
    if (limits[total] > 0 && part !== undefined) refuse(part, `cannot be together with ${total}, which limits both`);
  }
  const lengths = LIMITED.map((kind) => [`${kind}MaxLengthS`, burstLength(kind, limits, refuse)]);
  if (limits.iopsSize > 0 && !limited.some((kind) => kind.startsWith('iops'))) {
    refuse('iopsSize', 'needs iops, iops_read or iops_write');
  }
  if (limits.group !== '') {
    if (!GROUP_PATTERN.test(limits.group)) {
      refuse('group', 'must be 1 to 64 letters, digits, ".", "_" or "-", and begin with a letter or a digit');
    }
    if (limited.length === 0) refuse('group', 'needs a limit for the group');
  }
  return { ...limits, ...(Object.fromEntries(lengths) as Partial<Rates>) };
}

/** In seconds; QEMU makes one second of a burst without a length. */
function burstLength(kind: Limited, limits: IoLimits, refuse: (name: string, problem: string) => never): number {
  const [base, max, length] = [limits[kind], limits[`${kind}Max`], limits[`${kind}MaxLengthS`]];
  if (max === 0) return length === 0 ? 0 : refuse(`${kind}MaxLengthS`, `needs ${apiName(`${kind}Max`)}`);
  if (base === 0) return refuse(`${kind}Max`, `needs ${apiName(kind)}`);
  if (max < base) return refuse(`${kind}Max`, `must not be less than ${apiName(kind)}, ${base}`);
  if (length > VALUE_MAX / max) return refuse(`${kind}MaxLengthS`, 'is too long for so high a rate');
  return length === 0 ? 1 : length;
}

/** For people: "bps 1048576 (max 4194304 for 5 s), group a", or "no limit". */
export function limitsText(limits: IoLimits): string {
  const kinds = LIMITED.filter((kind) => limits[kind] > 0).map((kind) => {
    const [max, length] = [limits[`${kind}Max`], limits[`${kind}MaxLengthS`]];
    return `${apiName(kind)} ${limits[kind]}${max === 0 ? '' : ` (max ${max} for ${length} s)`}`;
  });
  if (kinds.length === 0) return 'no limit';
  if (limits.iopsSize > 0) kinds.push(`iops_size ${limits.iopsSize}`);
  if (limits.group !== '') kinds.push(`group ${limits.group}`);
  return kinds.join(', ');
}

export function isLimited(limits: IoLimits): boolean {
  return LIMITED.some((kind) => limits[kind] > 0);
}

/** QEMU's name of each value. */
const THROTTLE_NAMES = {
  ...{ iops: 'iops', iopsMax: 'iops_max', iopsMaxLengthS: 'iops_max_length' },
  ...{ iopsRead: 'iops_rd', iopsReadMax: 'iops_rd_max', iopsReadMaxLengthS: 'iops_rd_max_length' },
  ...{ iopsWrite: 'iops_wr', iopsWriteMax: 'iops_wr_max', iopsWriteMaxLengthS: 'iops_wr_max_length' },
  ...{ bps: 'bps', bpsMax: 'bps_max', bpsMaxLengthS: 'bps_max_length' },
  ...{ bpsRead: 'bps_rd', bpsReadMax: 'bps_rd_max', bpsReadMaxLengthS: 'bps_rd_max_length' },
  ...{ bpsWrite: 'bps_wr', bpsWriteMax: 'bps_wr_max', bpsWriteMaxLengthS: 'bps_wr_max_length' },
  iopsSize: 'iops_size',
} as const satisfies Record<RateField | 'iopsSize', keyof IoThrottle>;

const OPTIONAL_NAMES = /_(?:max|max_length|size)$/;
const GROUP_PREFIX = 'group-';

/**
 * Arguments of block_set_io_throttle. The group is always named: without it QEMU would change the group that the disk
 * is in. A volume that shares with nobody has one of its own, called as its device.
 * @param device id of the volume's front end
 */
export function throttleOf(limits: IoLimits, device: string): IoThrottle {
  const values = Object.entries(THROTTLE_NAMES)
    .map(([field, name]) => [name, limits[field as keyof typeof THROTTLE_NAMES]] as const)
    .filter(([name, value]) => value > 0 || !OPTIONAL_NAMES.test(name));
  const group = limits.group === '' ? device : `${GROUP_PREFIX}${limits.group}`;
  // The required ones are never left out.
  return { ...(Object.fromEntries(values) as unknown as IoThrottle), group };
}

/** What QEMU shows of a disk's limits (QAPI BlockDeviceInfo). */
export function limitsSeen(shown: IoThrottle): IoLimits {
  const value = (name: keyof typeof THROTTLE_NAMES): number => shown[THROTTLE_NAMES[name]] ?? 0;
  const seen = Object.fromEntries(
    LIMITED.flatMap((kind) => {
      const max = value(`${kind}Max`);
      // It shows a length of 1 for a burst that there is not.
      const length = max === 0 ? 0 : value(`${kind}MaxLengthS`);
      return [
        [kind, value(kind)],
        [`${kind}Max`, max],
        [`${kind}MaxLengthS`, length],
      ];
    }),
  ) as Rates;
  const { group = '' } = shown;
  const limits = { ...seen, iopsSize: value('iopsSize'), group: '' };
  return group.startsWith(GROUP_PREFIX) && isLimited(limits)
    ? { ...limits, group: group.slice(GROUP_PREFIX.length) }
    : limits;
}
