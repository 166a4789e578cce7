/** `qshim sandbox ...` */
import { Option, type CommandUnknownOpts } from '@commander-js/extra-typings';
import type { ConsoleChunk__Output } from '../grpc/generated/qshim/v1/ConsoleChunk.ts';
import type { DeleteSandboxResponse__Output } from '../grpc/generated/qshim/v1/DeleteSandboxResponse.ts';
import type { ListSandboxesResponse__Output } from '../grpc/generated/qshim/v1/ListSandboxesResponse.ts';
import type { Sandbox__Output } from '../grpc/generated/qshim/v1/Sandbox.ts';
import { CliFailure } from './cli-failure.ts';
import { addExecCommand } from './exec-command.ts';
import { EXIT } from './exit-codes.ts';
import { collectPair, keysOf, present, wholeNumber } from './options.ts';
import { addPowerCommands } from './power-commands.ts';
import { ACCELERATORS, createRequest, READY_WHEN, TEMPLATE_USES } from './sandbox-requests.ts';
import { sizeInMebibytes } from './sizes.ts';
import { TerminalText } from './terminal-text.ts';
import type { Session } from './session.ts';

const BY_DAEMON = "(default: the daemon's configuration)";

export function addSandboxCommands(program: CommandUnknownOpts, session: Session): void {
  const sandbox = program
    .command('sandbox')
    .alias('sb')
    .description('Sandbox VMs: create, look at, run commands in, stop, delete');
  addCreate(sandbox, session);
  addGetAndList(sandbox, session);
  addPowerCommands(sandbox, session);
  addStopAndDelete(sandbox, session);
  addExecCommand(sandbox, session);
  addConsole(sandbox, session);
}

function addCreate(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('create')
    .description(
      'Start a sandbox VM and wait until its guest agent answers. Repeating it with the same options answers as the first time did.',
    )
    .argument('<id>', 'id of your choice: letters, digits, ".", "_", "-", at most 64')
    .option('--vcpus <n>', `virtual CPUs ${BY_DAEMON}`, wholeNumber(1, 255))
    .option('--memory <size>', `guest memory in MiB, or with a unit: 2G ${BY_DAEMON}`, sizeInMebibytes)
    .option('--kernel <path>', `guest kernel on this host ${BY_DAEMON}`)
    .option('--initrd <path>', `initial ramdisk on this host ${BY_DAEMON}`)
    .option('--kernel-parameters <text>', "appended to the daemon's own kernel parameters (default: nothing)")
    .addOption(
      new Option('--accelerator <kind>', 'auto tries KVM and falls back to TCG (default: auto)').choices(
        keysOf(ACCELERATORS),
      ),
    )
    .option('--iothreads <n>', `threads of QEMU that serve volumes ${BY_DAEMON}`, wholeNumber(1))
    .option('--volume-capacity <n>', `volumes that can be attached at once ${BY_DAEMON}`, wholeNumber(1))
    .option('--label <name=value>', 'label to find the sandbox by; may be repeated', collectPair)
    .addOption(
      new Option(
        '--ready-when <moment>',
        'answer when the guest agent answers, or already when QEMU runs (default: agent)',
      ).choices(keysOf(READY_WHEN)),
    )
    .addOption(
      new Option(
        '--template <use>',
        `start as a clone of a template: when there is one, never, or always ${BY_DAEMON}`,
      ).choices(keysOf(TEMPLATE_USES)),
    )
    .addHelpText(
      'after',
      `
Examples:
  qshim sandbox create sb1
  qshim sandbox create sb2 --vcpus 2 --memory 2G --label team=storage
  qshim sandbox create sb3 --template required   # a clone; makes the template if there is none`,
    )
    .action(async (sandboxId, options) => {
      const work = {
        sandboxId,
        progress: `creating ${sandboxId}`,
        lookAgain: `\`qshim sandbox get ${sandboxId}\``,
      };
      await session.run(work, async (api) => {
        const request = createRequest(sandboxId, options, session.surroundings.cwd);
        const created = await session.waiting(work, () =>
          api.call<Sandbox__Output>((callOptions, done) => api.sandboxes.Create(request, callOptions, done)),
        );
        await showSummary(session, created);
      });
    });
}

function addGetAndList(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('get')
    .description(
      'Show one sandbox: state and cause, accelerator, QEMU, slots, and how long each phase of its start took',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .addHelpText('after', '\nExample:\n  qshim sandbox get sb1')
    .action(async (sandboxId) => {
      await session.run({ sandboxId }, async (api) => {
        const found = await api.call<Sandbox__Output>((callOptions, done) =>
          api.sandboxes.Get({ sandboxId }, callOptions, done),
        );
        if (session.json) {
          await session.document(found);
          return;
        }
        const { sandboxSheet } = await import('./sandbox-view.ts');
        await session.say(sandboxSheet(found, session.widthMax));
      });
    });
  parent
    .command('list')
    .description('List sandboxes')
    .option('--label <name=value>', 'only those with this label; may be repeated (default: all)', collectPair)
    .addHelpText('after', '\nExamples:\n  qshim sandbox list\n  qshim sandbox list --label team=storage --json')
    .action(async (options) => {
      await session.run({}, async (api) => {
        const request = present({ labels: options.label });
        const answer = await api.call<ListSandboxesResponse__Output>((callOptions, done) =>
          api.sandboxes.List(request, callOptions, done),
        );
        if (session.json) {
          await session.document(answer);
          return;
        }
        const { sandboxTable } = await import('./sandbox-view.ts');
        await session.say(sandboxTable(answer.sandboxes, session.widthMax));
      });
    });
}

function addStopAndDelete(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('stop')
    .description('Shut a sandbox down: by its agent, then by the power button, then by force')
    .argument('<sandbox>', 'id of the sandbox')
    .option('--force', 'do not ask the guest (default: ask it first)')
    .option('--graceful-timeout <ms>', `milliseconds for each graceful step ${BY_DAEMON}`, wholeNumber(1))
    .addHelpText('after', '\nExamples:\n  qshim sandbox stop sb1\n  qshim sandbox stop sb1 --graceful-timeout 3000')
    .action(async (sandboxId, { force, gracefulTimeout }) => {
      const work = {
        sandboxId,
        progress: `stopping ${sandboxId}`,
        lookAgain: `\`qshim sandbox get ${sandboxId}\``,
      };
      await session.run(work, async (api) => {
        const request = { sandboxId, ...present({ force, gracefulTimeoutMs: gracefulTimeout }) };
        const stopped = await session.waiting(work, () =>
          api.call<Sandbox__Output>((callOptions, done) => api.sandboxes.Stop(request, callOptions, done)),
        );
        await showSummary(session, stopped);
      });
    });
  parent
    .command('delete')
    .description('Forget a stopped sandbox and remove its files')
    .argument('<sandbox>', 'id of the sandbox')
    .option('--force', 'stop it first, without asking the guest (default: refuse while it runs)')
    .addHelpText('after', '\nExamples:\n  qshim sandbox delete sb1\n  qshim sandbox delete sb1 --force')
    .action(async (sandboxId, { force }) => {
      const work = { sandboxId, progress: `deleting ${sandboxId}`, lookAgain: '`qshim sandbox list`' };
      await session.run(work, async (api) => {
        const request = { sandboxId, ...present({ force }) };
        const answer = await session.waiting(work, () =>
          api.call<DeleteSandboxResponse__Output>((callOptions, done) =>
            api.sandboxes.Delete(request, callOptions, done),
          ),
        );
        // To the API a repeat is no error; who types an id wants to know that nothing of that name was there.
        if (answer.notFound) throw notFound(sandboxId);
        await (session.json ? session.document(answer) : session.say(`${sandboxId}: deleted`));
      });
    });
}

function addConsole(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('console')
    .description('Print what the guest wrote to its serial console, from the beginning')
    .argument('<sandbox>', 'id of the sandbox')
    .option('--follow', 'go on with what comes, until Ctrl-C (default: end at the present end)')
    .option('--raw', 'as bytes, which may drive a terminal (default: control characters are shown, as \\u{1b})')
    .addHelpText('after', '\nExample:\n  qshim sandbox console sb1 --follow')
    .action(async (sandboxId, { follow, raw }) => {
      await session.run({ sandboxId }, async (api) => {
        const text = new TerminalText();
        await api.stream<ConsoleChunk__Output>(
          (callOptions) => api.sandboxes.Console({ sandboxId, ...present({ follow }) }, callOptions),
          (chunk) => {
            if (session.json) return session.jsonLine(chunk);
            return session.writeOut(raw === true ? chunk.data : text.write(chunk.data));
          },
        );
        if (!session.json) await session.writeOut(text.end());
      });
    });
}

function notFound(sandboxId: string): CliFailure {
  return new CliFailure('NOT_FOUND', `there is no sandbox ${sandboxId}; nothing was deleted`, {
    reason: 'SANDBOX_NOT_FOUND',
    exitCode: EXIT.notFound,
    metadata: { sandboxId },
  });
}

async function showSummary(session: Session, sandbox: Sandbox__Output): Promise<void> {
  if (session.json) {
    await session.document(sandbox);
    return;
  }
  const { sandboxSummary } = await import('./sandbox-view.ts');
  await session.say(sandboxSummary(sandbox));
}
