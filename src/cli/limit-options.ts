/** Options that limit a disk's I/O, for `qshim volume attach` and `qshim volume limit`. Pure. */
import { InvalidArgumentError, Option, type CommandUnknownOpts } from '@commander-js/extra-typings';
import { parseSize, SIZE_FORM } from '../base/sizes.ts';
import type { IoLimits } from '../grpc/generated/qshim/v1/IoLimits.ts';
import { usageFailure } from './cli-failure.ts';
import { present, wholeNumber } from './options.ts';
import { sizeInBytes } from './sizes.ts';

/** A rate, and the burst that may come before it. */
export interface Rate {
  readonly rate: number;
  readonly max?: number;
  readonly seconds?: number;
}

const KINDS = ['iops', 'iopsRead', 'iopsWrite', 'bps', 'bpsRead', 'bpsWrite'] as const;
type Kind = (typeof KINDS)[number];

const RATE_VALUE = '<rate[:max[:seconds]]>';
const WHAT: Readonly<Record<Kind, string>> = {
  iops: 'reads and writes a second, together; after a quiet time max a second, for so many seconds (default: no limit)',
  iopsRead: 'reads a second, likewise (default: no limit)',
  iopsWrite: 'writes a second, likewise (default: no limit)',
  bps: 'bytes a second, reads and writes together, e.g. 10M or 10M:40M:5 (default: no limit)',
  bpsRead: 'bytes a second that are read, likewise (default: no limit)',
  bpsWrite: 'bytes a second that are written, likewise (default: no limit)',
};

/** `100`, `100:400`, `100:400:5`; of bytes each with a unit, if need be. */
function rateOf(text: string): Rate {
  const [rate, max, seconds, ...more] = text.split(':');
  const number = (part: string | undefined): number | undefined => (part === undefined ? 0 : parseSize(part)?.bytes);
  const [base, burst] = [number(rate), number(max)];
  const length = seconds === undefined ? 0 : /^\d{1,9}$/.test(seconds) ? Number(seconds) : undefined;
  if (base === undefined || base === 0 || burst === undefined || length === undefined || more.length > 0) {
    throw new InvalidArgumentError(`Give RATE, RATE:MAX or RATE:MAX:SECONDS; each rate is ${SIZE_FORM}.`);
  }
  return {
    rate: base,
    ...(max === undefined ? {} : { max: burst }),
    ...(seconds === undefined ? {} : { seconds: length }),
  };
}

export type LimitOptions = { readonly [K in Kind]?: Rate | undefined } & {
  readonly iopsSize?: number | undefined;
  readonly limitGroup?: string | undefined;
  readonly budget?: string | undefined;
  readonly share?: number | undefined;
};

export function addLimitOptions(command: CommandUnknownOpts): void {
  const flag = (kind: Kind): string => kind.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const options = [
    ...KINDS.map((kind) => new Option(`--${flag(kind)} ${RATE_VALUE}`, WHAT[kind]).argParser(rateOf)),
    new Option('--iops-size <size>', 'bytes that count as one operation (default: any request is one)').argParser(
      sizeInBytes(),
    ),
    new Option('--limit-group <name>', 'share the limits with the volumes of the sandbox that name it (default: none)'),
    new Option('--budget <name>', 'draw on this budget of the daemon instead (default: none)'),
    new Option('--share <n>', 'weight among those that draw on the budget (default: 1)').argParser(
      wholeNumber(1, 1000),
    ),
  ];
  for (const option of options) command.addOption(option.helpGroup('Limits of I/O:'));
}

/** For the API. @returns undefined when nothing is limited @throws CliFailure of usage for a group without a limit */
export function limitsOf(options: LimitOptions): IoLimits | undefined {
  const rates = KINDS.flatMap((kind) => {
    const { rate, max, seconds } = options[kind] ?? {};
    return Object.entries(present({ [kind]: rate, [`${kind}Max`]: max, [`${kind}MaxLengthS`]: seconds }));
  });
  const { iopsSize, limitGroup: group, budget, share } = options;
  if (budget === undefined && share !== undefined) throw usageFailure('--share is of a budget: give --budget as well');
  if (budget !== undefined) {
    if (rates.length > 0 || iopsSize !== undefined || group !== undefined) {
      throw usageFailure('--budget is instead of limits of its own');
    }
    return { budget, ...present({ share }) };
  }
  if (rates.length > 0) return { ...Object.fromEntries(rates), ...present({ iopsSize, group }) };
  if (iopsSize === undefined && group === undefined) return undefined;
  throw usageFailure(
    '--iops-size and --limit-group say more of a limit: give --iops, --bps or one of the others as well',
  );
}
