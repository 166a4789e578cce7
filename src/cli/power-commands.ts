/** `qshim sandbox start`, `pause`, `resume` and `reboot`. */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { CallOptions, ClientUnaryCall, requestCallback } from '@grpc/grpc-js';
import type { Sandbox__Output } from '../grpc/generated/qshim/v1/Sandbox.ts';
import type { SandboxesClient } from '../grpc/generated/qshim/v1/Sandboxes.ts';
import { present, wholeNumber } from './options.ts';
import type { Session } from './session.ts';

type Call = (
  sandboxes: SandboxesClient,
  options: CallOptions,
  done: requestCallback<Sandbox__Output>,
) => ClientUnaryCall;

export function addPowerCommands(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('start')
    .description(
      'Start a stopped sandbox again, as it was created: a new VM, without the volumes and files that the old one had',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .addHelpText('after', '\nExample:\n  qshim sandbox start sb1')
    .action(async (sandboxId) => {
      await show(session, sandboxId, 'starting', (sandboxes, ...rest) => sandboxes.Start({ sandboxId }, ...rest));
    });
  parent
    .command('pause')
    .description('Stop the vCPUs of a sandbox; done when QEMU says so')
    .argument('<sandbox>', 'id of the sandbox')
    .addHelpText('after', '\nExample:\n  qshim sandbox pause sb1')
    .action(async (sandboxId) => {
      await show(session, sandboxId, 'pausing', (sandboxes, ...rest) => sandboxes.Pause({ sandboxId }, ...rest));
    });
  parent
    .command('resume')
    .description('Let the vCPUs of a sandbox go on, whatever they were stopped for; done when QEMU says so')
    .argument('<sandbox>', 'id of the sandbox')
    .addHelpText('after', '\nExample:\n  qshim sandbox resume sb1')
    .action(async (sandboxId) => {
      await show(session, sandboxId, 'resuming', (sandboxes, ...rest) => sandboxes.Resume({ sandboxId }, ...rest));
    });
  parent
    .command('reboot')
    .description(
      'Reboot the guest: by its agent, then by a reset. Volumes stay attached; their mounts go with the old boot.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .option('--force', 'reset it without asking: unwritten data is lost (default: ask the guest first)')
    .option(
      '--graceful-timeout <ms>',
      "milliseconds for the guest to reboot by itself (default: the daemon's configuration)",
      wholeNumber(1),
    )
    .addHelpText('after', '\nExamples:\n  qshim sandbox reboot sb1\n  qshim sandbox reboot sb1 --force')
    .action(async (sandboxId, { force, gracefulTimeout }) => {
      const request = { sandboxId, ...present({ force, gracefulTimeoutMs: gracefulTimeout }) };
      await show(session, sandboxId, 'rebooting', (sandboxes, ...rest) => sandboxes.Reboot(request, ...rest));
    });
}

async function show(session: Session, sandboxId: string, doing: string, start: Call): Promise<void> {
  const lookAgain = `\`qshim sandbox get ${sandboxId}\``;
  const work = { sandboxId, progress: `${doing} ${sandboxId}`, lookAgain };
  await session.run(work, async (api) => {
    const sandbox = await session.waiting(work, () =>
      api.call<Sandbox__Output>((options, done) => start(api.sandboxes, options, done)),
    );
    if (session.json) {
      await session.document(sandbox);
      return;
    }
    const { sandboxSummary } = await import('./sandbox-view.ts');
    await session.say(sandboxSummary(sandbox));
  });
}
