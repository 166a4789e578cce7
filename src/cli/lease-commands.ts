/** `qshim volume renew` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { Volume__Output } from '../grpc/generated/qshim/v1/Volume.ts';
import { LEASE_OPTION_FORM, leaseFields } from './leases.ts';
import type { Session } from './session.ts';

export function addRenew(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('renew')
    .description('Give a volume another lease: how long it may stay from now on, before it is detached by itself')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .argument('<lease>', LEASE_OPTION_FORM, leaseFields)
    .addHelpText(
      'after',
      '\nExamples:\n  qshim volume renew sb1 data 10m\n  qshim volume renew sb1 data 2030-01-31T12:00:00Z',
    )
    .action(async (sandboxId, volumeId, lease) => {
      await session.run({ sandboxId, volumeId }, async (api) => {
        const request = { sandboxId, volumeId, ...lease };
        const renewed = await api.call<Volume__Output>((options, done) =>
          api.volumes.RenewLease(request, options, done),
        );
        if (session.json) {
          await session.document(renewed);
          return;
        }
        const { volumeSummary } = await import('./volume-view.ts');
        await session.say(volumeSummary(renewed, { timings: false }));
      });
    });
}
