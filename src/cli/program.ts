/**
 * The tree of commands, and one run of it.
 *
 *     words ─▶ program.ts ─▶ *-commands.ts ─ *-requests.ts ─▶ session.ts ─ connection.ts ─▶ qshimd
 *                                  └─ *-view.ts, table.ts ◀─ the answer; failure.ts, hints.ts ◀─ an error
 */
import { Argument, Command, CommanderError, type CommandUnknownOpts } from '@commander-js/extra-typings';
import { addBenchCommands } from './bench-commands.ts';
import { addBudgetCommands } from './budget-commands.ts';
import { CliFailure, usageFailure } from './cli-failure.ts';
import { complete, completionScript, locate, SHELLS } from './completion.ts';
import { addDoctorCommand } from './doctor-command.ts';
import { EXIT, EXIT_CODE_MEANINGS } from './exit-codes.ts';
import { addHealthCommand } from './health-command.ts';
import { addHelpCommands, pathOf } from './help-command.ts';
import { wholeNumber } from './options.ts';
import { addOperationCommands } from './operation-commands.ts';
import { addSandboxCommands } from './sandbox-commands.ts';
import { DEFAULT_SOCKET, failureText, Session, type Surroundings } from './session.ts';
import { visible } from '../base/visible.ts';
import { addStatsCommands } from './stats-commands.ts';
import { addVolumeCommands } from './volume-commands.ts';
import { addWatchCommand } from './watch-command.ts';

/** The word by which completion scripts ask for candidates; not a command that people see. */
const COMPLETE = '__complete';
const COMPLETE_DEADLINE_MS = 1000;

/** Runs one command line (without the program's name) and answers with its exit code. Never rejects. */
export async function runCli(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  if (argv[0] === COMPLETE) return await answerCompletion(argv.slice(1), surroundings);
  const { program, session } = buildProgram(surroundings);
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return session.exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return reportUsage(error, program, argv, surroundings);
    const failure = new CliFailure('INTERNAL', error instanceof Error ? error.message : String(error), {
      reason: 'INTERNAL',
      exitCode: EXIT.failed,
    });
    surroundings.stderr.write(failureText(failure, session.json));
    return failure.exitCode;
  }
}

/** The commands over a session that carries out what they say. */
export function buildProgram(surroundings: Surroundings): { program: CommandUnknownOpts; session: Session } {
  const program = new Command('qshim')
    .description('Run QEMU sandbox VMs and hot-plug volumes into them, by way of the qshimd daemon of this host.')
    .version(surroundings.version, '--version', 'print the version')
    .option('--json', 'print JSON for programs; errors become JSON on stderr (default: tables for people)')
    .option('--socket <path>', `the daemon's UNIX socket (default: QSHIM_SOCKET, else ${DEFAULT_SOCKET})`)
    .option(
      '--deadline <ms>',
      'give up waiting for the daemon after so many milliseconds; it finishes what it began (default: wait)',
      wholeNumber(1),
    )
    .helpOption('--help', 'explain a command')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => surroundings.stdout.write(text),
      writeErr: (text) => surroundings.stderr.write(text),
      // Errors are told in one place, reportUsage, in the shape of all the others.
      outputError: () => undefined,
      getOutHelpWidth: () => surroundings.stdout.columns ?? 100,
      getErrHelpWidth: () => surroundings.stderr.columns ?? 100,
    })
    .exitOverride();
  const session = new Session(surroundings, () => program.opts());
  addSandboxCommands(program, session);
  addVolumeCommands(program, session);
  addOperationCommands(program, session);
  addStatsCommands(program, session);
  addBenchCommands(program, session);
  addBudgetCommands(program, session);
  addWatchCommand(program, session);
  addDoctorCommand(program, session);
  addHealthCommand(program, session);
  addCompletionCommand(program, session);
  addHelpCommands(program);
  program.addHelpText('after', `\n${exitCodesText()}\n\n${EXAMPLES}`);
  return { program, session };
}

const EXAMPLES = `Examples:
  qshim doctor
  qshim sandbox create sb1
  qshim volume attach sb1 data --raw ./data.img --mount /mnt/data --format if-empty
  qshim sandbox exec sb1 -- /bin/df -h /mnt/data
  qshim volume detach sb1 data
  qshim sandbox delete sb1 --force`;

function exitCodesText(): string {
  const lines = EXIT_CODE_MEANINGS.map(([code, meaning]) => `  ${String(code).padEnd(4)} ${meaning}`);
  return ['Exit codes (sandbox exec passes on those of the guest command):', ...lines].join('\n');
}

function addCompletionCommand(program: CommandUnknownOpts, session: Session): void {
  program
    .command('completion')
    .description('Print a completion script for your shell')
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .addHelpText('after', '\nExamples:\n  source <(qshim completion bash)\n  qshim completion fish | source')
    .action(async (shell) => {
      await session.guard({}, () => session.writeOut(completionScript(shell)));
    });
}

/** Commander has found the command line wrong, or has printed what it was asked for (help, version). */
function reportUsage(
  error: CommanderError,
  program: CommandUnknownOpts,
  argv: readonly string[],
  { stderr }: Surroundings,
): number {
  // The help that stands in for a missing sub-command has been written to stderr already.
  if (error.code === 'commander.help') return EXIT.usage;
  if (error.exitCode === 0) return EXIT.ok;
  const end = argv.indexOf('--');
  const json = (end === -1 ? argv : argv.slice(0, end)).includes('--json');
  const [message, ...more] = error.message.replace(/^error: /, '').split('\n');
  const text = failureText(usageFailure([message, ...more].join(' ').trim()), json);
  const path = pathOf(locate(program, argv).command);
  stderr.write(json ? text : `${text}hint: see \`${visible(path)} --help\`\n`);
  return EXIT.usage;
}

/** Prints candidates, one a line. Whoever presses Tab wants no error messages, so there are none. */
async function answerCompletion(words: readonly string[], surroundings: Surroundings): Promise<number> {
  const { program, session } = buildProgram(surroundings);
  const { candidates, ids } = complete(program, words);
  const current = words.at(-1) ?? '';
  const known = ids === undefined ? [] : await askForIds(ids, session);
  const lines = [...candidates, ...known.filter((id) => id.startsWith(current))];
  for (const line of lines) surroundings.stdout.write(`${visible(line)}\n`);
  return EXIT.ok;
}

async function askForIds(
  ids: Exclude<ReturnType<typeof complete>['ids'], undefined>,
  session: Session,
): Promise<readonly string[]> {
  try {
    session.checkSocket();
    const { Connection } = await import('./connection.ts');
    using api = new Connection({ ...session.connectionOptions, deadlineMs: COMPLETE_DEADLINE_MS });
    return ids.kind === 'sandbox' ? await api.sandboxIds() : await api.volumeIds(ids.sandboxId);
  } catch {
    return [];
  }
}
