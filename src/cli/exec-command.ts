/** `qshim sandbox exec` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { ExecResponse__Output } from '../grpc/generated/qshim/v1/ExecResponse.ts';
import { usageFailure } from './cli-failure.ts';
import { checkStreams, execStream } from './exec-stream.ts';
import { EXIT, exitCodeOfGuest } from './exit-codes.ts';
import { collectAssignment, wholeNumber } from './options.ts';
import { execRequest } from './sandbox-requests.ts';
import type { Session } from './session.ts';
import { STDIN_BYTES_MAX, readStandardInput } from './standard-input.ts';

const BY_DAEMON = "(default: the daemon's configuration)";

export function addExecCommand(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('exec')
    .description(
      "Run one command in the guest. Its output passes through as bytes, to a terminal without control characters; qshim exits with the command's exit code, or 128 + signal.",
    )
    .usage('[options] <sandbox> -- <path> [args...]')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<path>', 'program in the guest: an absolute path, or a name to be found in the PATH of its agent')
    .argument('[args...]', 'its arguments; put -- before the path so that they are not taken for options of qshim')
    .option(
      '--stdin',
      `pass standard input on, up to its end, at most ${STDIN_BYTES_MAX / 1024 / 1024} MiB (default: the command gets none)`,
    )
    .option(
      '-i, --interactive',
      'pass standard input, output and error on while the command runs, without a limit of size (default: output at its end)',
    )
    .option(
      '-t, --tty',
      "give the command a terminal; with -i it has this one's keys, Ctrl-C among them, and always its size (default: none)",
    )
    .option('--workdir <path>', 'directory in the guest to run it in; needs -i or -t (default: /)')
    .option(
      '--env <name=value>',
      'environment variable of the command; may be repeated (default: what the guest agent has)',
      collectAssignment,
    )
    .option('--timeout <ms>', `milliseconds that the command may take; then it is killed ${BY_DAEMON}`, wholeNumber(1))
    .option('--raw', 'its output as bytes to a terminal too (default: control characters are shown, as \\u{1b})')
    .addHelpText(
      'after',
      `
Examples:
  qshim sandbox exec sb1 -- /bin/lsblk -b
  echo hello | qshim sandbox exec sb1 --stdin -- /bin/sh -c 'cat > /tmp/greeting'
  qshim sandbox exec -it sb1 -- sh
  tar -c . | qshim sandbox exec -i sb1 --workdir /mnt/data -- tar -x`,
    )
    .action(async (sandboxId, path, args, options) => {
      if (options.interactive === true || options.tty === true || options.workdir !== undefined) {
        await stream(session, sandboxId, [path, ...args], options);
        return;
      }
      const work = { sandboxId, progress: `running ${path} in ${sandboxId}` };
      await session.run(work, async (api) => {
        const { stdin, signal } = session.surroundings;
        const input = options.stdin === true ? await readStandardInput(stdin, signal) : Buffer.alloc(0);
        const request = execRequest(sandboxId, { path, arguments: args }, options, input);
        const result = await session.waiting(work, () =>
          api.call<ExecResponse__Output>((callOptions, done) => api.sandboxes.Exec(request, callOptions, done)),
        );
        if (session.json) {
          await session.document(result);
        } else {
          const raw = options.raw === true;
          await session.writeOutput(result.standardOutput, raw);
          await session.writeOutput(result.standardError, raw, session.surroundings.stderr);
          if (result.truncated) session.remark('the output is not complete: the guest agent keeps only so much of it');
        }
        if (result.timedOut) session.remark('its time was over, so it was killed; --timeout sets another');
        session.exitCode = result.timedOut ? EXIT.deadline : exitCodeOfGuest(result);
      });
    });
}

interface StreamedOptions {
  readonly stdin?: true | undefined;
  readonly interactive?: true | undefined;
  readonly tty?: true | undefined;
  readonly workdir?: string | undefined;
  readonly env?: readonly string[] | undefined;
  readonly timeout?: number | undefined;
}

async function stream(
  session: Session,
  sandboxId: string,
  [path = '', ...args]: readonly string[],
  options: StreamedOptions,
): Promise<void> {
  const { interactive = false, tty = false, env = [], workdir = '' } = options;
  await session.guard({ sandboxId }, () => {
    if (!interactive && !tty) throw usageFailure('--workdir needs -i or -t');
    if (session.json) throw usageFailure('-i and -t pass bytes on: there is no --json for them');
    if (options.stdin === true) throw usageFailure('--stdin reads all input first: give it, or -i');
    if (options.timeout !== undefined) {
      throw usageFailure('--timeout is not for -i and -t; --deadline ends the call, and with it the command');
    }
    checkStreams(session.surroundings.stdin, { interactive, tty });
    return Promise.resolve();
  });
  if (session.exitCode !== EXIT.ok) return;
  const start = { sandboxId, path, arguments: args, environment: [...env], workingDirectory: workdir };
  await session.run({ sandboxId }, async (api) => {
    session.exitCode = await execStream(session, api, start, { interactive, tty });
  });
}
