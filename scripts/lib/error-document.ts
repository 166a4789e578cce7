import { REASONS, STATUSES, type Place, type ReasonRow } from '../../src/base/reasons.ts';

type Row = readonly [reason: string, about: ReasonRow];

const ROWS: readonly Row[] = Object.entries<ReasonRow>(REASONS).sort(([one], [other]) => (one < other ? -1 : 1));

/** docs/errors.md: every status, and every reason with what it means and what to do. */
export function errorDocument(): string {
  return [
    '# Errors',
    '',
    'Made from `src/base/reasons.ts` by `npm run error-docs`.',
    '',
    'An error of qshim is a gRPC status with a `google.rpc.ErrorInfo` of domain `qshim` in `grpc-status-details-bin`: a reason, and metadata',
    'that names what it is about. A problem in the answer to a batch has the same members.',
    '[api.md](api.md#talking-to-the-api-with-other-clients) shows how a client reads them.',
    '',
    '- Branch on the status or the reason, never on the message. A reason keeps its name and its statuses.',
    '- Later versions have more reasons: take one that you do not know by its status.',
    '- What gRPC answers by itself, when your own deadline has passed for instance, has a status and no reason.',
    '- The exit codes of the `qshim` command follow from the status: [cli.md](cli.md#exit-codes).',
    '',
    '## Errors of calls',
    '',
    ...Object.entries(STATUSES).flatMap(([status, when]) => [
      `### ${status}`,
      '',
      when,
      '',
      ...table(rowsOf('api').filter(([, { statuses }]) => statuses.some((one) => one === status))),
    ]),
    '## Causes',
    '',
    'The `cause` of a record or an event has a reason, too. What an error has led to has the reason of that error, from above. Others:',
    '',
    ...table(rowsOf('cause')),
    '## The command',
    '',
    'The `qshim` command has reasons of its own. With `--json` it prints them as it prints those of the daemon; for an answer that has no',
    'reason it prints the status in its place.',
    '',
    ...tableWithStatus(rowsOf('command')),
    '## The start of the daemon',
    '',
    'When `qshimd` cannot start, it says why on standard error; the reason is in its log, but for INVALID_CONFIG, before which it has none.',
    '',
    ...table(rowsOf('start')),
    '## Inside',
    '',
    'These do not leave the daemon, but for its log. A call that answers with one has met a bug.',
    '',
    ...table(rowsOf('inside')),
  ].join('\n');
}

function rowsOf(place: Place): readonly Row[] {
  return ROWS.filter(([, { where }]) => where.includes(place));
}

function table(rows: readonly Row[]): readonly string[] {
  return [
    '| reason | meaning | what to do |',
    '|---|---|---|',
    ...rows.map(([reason, { meaning, remedy }]) => `| \`${reason}\` | ${meaning} | ${remedy} |`),
    '',
  ];
}

function tableWithStatus(rows: readonly Row[]): readonly string[] {
  return [
    '| reason | status | meaning | what to do |',
    '|---|---|---|---|',
    ...rows.map(
      ([reason, { statuses, meaning, remedy }]) =>
        `| \`${reason}\` | ${statuses.join(', ')} | ${meaning} | ${remedy} |`,
    ),
    '',
  ];
}
