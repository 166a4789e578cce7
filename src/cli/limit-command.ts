/** `qshim volume limit` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { Volume__Output } from '../grpc/generated/qshim/v1/Volume.ts';
import { usageFailure } from './cli-failure.ts';
import { addLimitOptions, limitsOf, type LimitOptions } from './limit-options.ts';
import type { Session } from './session.ts';

export function addLimit(parent: CommandUnknownOpts, session: Session): void {
  const limit = parent.command('limit');
  addLimitOptions(limit);
  limit
    .description(
      'Hold an attached volume to other limits of I/O, while it is in use; done when QEMU is seen to have them. They take the place of all that it had, and are those of all of its group.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .option('--none', 'no limits any more (default: give at least one)')
    .addHelpText(
      'after',
      `
Examples:
  qshim volume limit sb1 data --bps 20M --iops 500
  qshim volume limit sb1 data --bps-write 10M:40M:5
  qshim volume limit sb1 data --bps 50M --limit-group all-disks
  qshim volume limit sb1 data --budget tenant-a --share 2
  qshim volume limit sb1 data --none`,
    )
    .action(async (sandboxId, volumeId, { none }, command) => {
      const lookAgain = `\`qshim volume get ${sandboxId} ${volumeId}\``;
      const work = { sandboxId, volumeId, progress: `limiting ${volumeId} of ${sandboxId}`, lookAgain };
      await session.run(work, async (api) => {
        // The options are added to the command as a whole, so its type does not have them.
        const limits = limitsOf(command.opts() as LimitOptions);
        if ((limits === undefined) !== (none === true)) throw usageFailure('give limits, or --none to take all away');
        const request = { sandboxId, volumeId, limits: limits ?? null };
        const limited = await session.waiting(work, () =>
          api.call<Volume__Output>((options, done) => api.volumes.SetLimits(request, options, done)),
        );
        if (session.json) {
          await session.document(limited);
          return;
        }
        const { limitsSummary } = await import('./volume-view.ts');
        await session.say(limitsSummary(limited));
      });
    });
}
