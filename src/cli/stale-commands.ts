/** `qshim volume stale ...` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import { visible } from '../base/visible.ts';
import type { ListStaleCopiesResponse__Output } from '../grpc/generated/qshim/v1/ListStaleCopiesResponse.ts';
import type { StaleCopy__Output as StaleCopy } from '../grpc/generated/qshim/v1/StaleCopy.ts';
import type { Session } from './session.ts';
import { table } from './table.ts';
import { timestampOrNothing } from './values.ts';

export function addStale(parent: CommandUnknownOpts, session: Session): void {
  const stale = parent.command('stale').description('Copies of volumes that a failover has left behind, and fenced');
  stale
    .command('list')
    .description('List the stale copies, and where the guest went on')
    .addHelpText('after', '\nExample:\n  qshim volume stale list')
    .action(async () => {
      await session.run({}, async (api) => {
        const answer = await api.call<ListStaleCopiesResponse__Output>((options, done) =>
          api.volumes.ListStaleCopies({}, options, done),
        );
        if (session.json) await session.document(answer);
        else await session.say(staleTable(answer.copies, session.widthMax));
      });
    });
  stale
    .command('release')
    .description('Give a stale copy free as it is: whoever uses it next has the bytes of before the failover.')
    .argument('<path>', 'of the copy, as list shows it')
    .addHelpText('after', '\nExample:\n  qshim volume stale release /var/lib/qshim/volumes/data.img')
    .action(async (path) => {
      await session.run({}, async (api) => {
        const released = await api.call<StaleCopy>((options, done) =>
          api.volumes.ReleaseStaleCopy({ path }, options, done),
        );
        if (session.json) await session.document(released);
        else await session.say(staleTable([released], session.widthMax));
      });
    });
}

function staleTable(copies: readonly StaleCopy[], widthMax: number | undefined): string {
  const rows = copies.map(({ path, currentPath, sandboxId, volumeId, since }) => [
    visible(path),
    visible(currentPath),
    visible(sandboxId),
    visible(volumeId),
    timestampOrNothing(since),
  ]);
  return table(['STALE COPY', 'CURRENT COPY', 'SANDBOX', 'VOLUME', 'SINCE'], rows, widthMax);
}
