/** `qshim bench volume` */
import { writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { ExecResponse__Output as ExecResponse } from '../grpc/generated/qshim/v1/ExecResponse.ts';
import type { Volume__Output as Volume } from '../grpc/generated/qshim/v1/Volume.ts';
import {
  failed,
  fioArguments,
  JOBS,
  refused,
  resultFrom,
  resultTable,
  targetOf,
  userOf,
  type Result,
  type Target,
} from './bench-fio.ts';
import { CliFailure } from './cli-failure.ts';
import type { Connection } from './connection.ts';
import { EXIT } from './exit-codes.ts';
import { absolutePath, wholeNumber } from './options.ts';
import { execRequest } from './sandbox-requests.ts';
import type { Session } from './session.ts';
import { sizeInBytes } from './sizes.ts';

const MEBIBYTE = 1024 * 1024;
const SECONDS = 5;
/** Beside the time that fio measures: it writes its file first. */
const FIO_MORE_MS = 120_000;
const LOOK_MS = 10_000;
const SYSTEM_BLOCK = '/sys/class/block';

export function addBenchCommands(program: CommandUnknownOpts, session: Session): void {
  const bench = program.command('bench').description('Measure what a guest gets of a volume');
  bench
    .command('volume')
    .description(
      'Run fio in the guest, on a file where the volume is mounted, else on the disk itself, which is then only read.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .option('--seconds <n>', `how long each job runs (default: ${SECONDS})`, wholeNumber(1, 3600))
    .option('--size <size>', 'of the file that is written and read (default: 256M)', sizeInBytes(MEBIBYTE))
    .option(
      '--write-device',
      'also write to the disk itself, which destroys what is on it; refused when it is in use (default: only read it)',
    )
    .option('--fio <command>', 'fio in the guest, with words before it where it needs some (default: fio)')
    .option('--svg <file>', 'draw the result into this file (default: only the table)')
    .addHelpText(
      'after',
      '\nExamples:\n  qshim bench volume sb1 data\n  qshim bench volume sb1 data --seconds 20 --svg data.svg',
    )
    .action(async (sandboxId, volumeId, options) => {
      const { seconds = SECONDS, size = 256 * MEBIBYTE, writeDevice = false, fio = 'fio', svg } = options;
      const progress = `measuring ${volumeId} of ${sandboxId}`;
      await session.run({ sandboxId, volumeId, progress }, async (api) => {
        const run = (command: readonly string[], timeout: number): Promise<ExecResponse> =>
          exec(api, sandboxId, command, timeout);
        const found = await api.call<Volume>((call, done) => api.volumes.Get({ sandboxId, volumeId }, call, done));
        const target = targetOf(found, { writeDevice, name: `.qshim-bench-${randomBytes(6).toString('hex')}` });
        const program = fio.split(' ').filter((word) => word !== '');
        await checkFio(run, program);
        if (!target.isFile && target.writes) await checkUnused(run, target.path);
        const results = await session.waiting({ sandboxId, volumeId, progress }, () =>
          measure(run, program, target, { seconds, bytes: size }),
        );
        if (svg !== undefined) {
          const { resultSvg } = await import('./bench-svg.ts');
          const title = `Volume ${volumeId} of ${sandboxId}, by fio in the guest`;
          await writeFile(absolutePath(session.surroundings.cwd, svg), resultSvg(title, results));
        }
        if (session.json) await session.document({ target, results });
        else await session.say(resultTable(results, session.widthMax));
      });
    });
}

type Run = (command: readonly string[], timeoutMs: number) => Promise<ExecResponse>;

async function exec(
  api: Connection,
  sandboxId: string,
  [path = '', ...args]: readonly string[],
  timeout: number,
): Promise<ExecResponse> {
  const request = execRequest(sandboxId, { path, arguments: args }, { timeout }, Buffer.alloc(0));
  return await api.call<ExecResponse>((options, done) => api.sandboxes.Exec(request, options, done));
}

async function checkFio(run: Run, program: readonly string[]): Promise<void> {
  const { exitCode } = await run([...program, '--version'], LOOK_MS).catch((error: unknown) => {
    if (error instanceof CliFailure && error.reason === 'GUEST_EXEC_REFUSED') return { exitCode: -1 };
    throw error;
  });
  if (exitCode === 0) return;
  throw new CliFailure('FAILED_PRECONDITION', `the guest has no fio (${program.join(' ')})`, {
    reason: 'FIO_NOT_IN_GUEST',
    exitCode: EXIT.failed,
  });
}

/** No answer of the guest's is no "nobody". @throws CliFailure BENCH_REFUSED */
async function checkUnused(run: Run, device: string): Promise<void> {
  const directory = `${SYSTEM_BLOCK}/${device.slice(device.lastIndexOf('/') + 1)}/`;
  const mounts = await run(['cat', '/proc/self/mounts', '/proc/swaps'], LOOK_MS);
  const holders = await run(['find', directory, '-path', '*/holders/*'], LOOK_MS);
  if (mounts.exitCode !== 0 || holders.exitCode !== 0) throw refused('the guest does not say who uses its disk');
  const user = userOf(device, mounts.standardOutput.toString(), holders.standardOutput.toString());
  if (user !== undefined) throw refused(user);
}

async function measure(
  run: Run,
  program: readonly string[],
  target: Target,
  limits: { readonly seconds: number; readonly bytes: number },
): Promise<readonly Result[]> {
  const results: Result[] = [];
  try {
    for (const job of JOBS.filter(({ side }) => target.writes || side === 'read')) {
      const command = [...program, ...fioArguments(job, target, limits)];
      const { exitCode, standardOutput, standardError } = await run(command, limits.seconds * 1000 + FIO_MORE_MS);
      if (exitCode !== 0) throw failed(`fio failed at ${job.name}: ${standardError.toString().trim()}`);
      results.push(resultFrom(job, standardOutput.toString()));
    }
  } finally {
    if (target.isFile) await run(['rm', '-f', target.path], LOOK_MS);
  }
  return results;
}
