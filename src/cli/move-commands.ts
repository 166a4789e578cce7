/** `qshim volume move` and `qshim volume pivot` */
import { Option, type CommandUnknownOpts } from '@commander-js/extra-typings';
import type { Operation__Output as Operation } from '../grpc/generated/qshim/v1/Operation.ts';
import type { Connection } from './connection.ts';
import { followOperation, operationWork } from './operation-follow.ts';
import { operationSheet } from './operation-view.ts';
import { keysOf, present } from './options.ts';
import { sizeInBytes } from './sizes.ts';
import { addSources, sourceOf } from './source-options.ts';
import type { Session } from './session.ts';

const PIVOTS = { automatic: 'PIVOT_AUTOMATIC', asked: 'PIVOT_ASKED' } as const;
const NO_WAIT = 'exit once it is begun; `qshim operation watch` follows it (default: follow it to its end)';

export function addMoveCommands(parent: CommandUnknownOpts, session: Session): void {
  addMove(parent, session);
  addPivot(parent, session);
}

function addMove(parent: CommandUnknownOpts, session: Session): void {
  const move = parent.command('move');
  addSources(move, 'Target (one of):');
  move
    .description(
      'Move an attached volume to another medium while its guest uses it: copy it, put the disk there, close the source. A cancel or an error leaves it where it is.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .option('--create', 'make a raw or qcow2 file that is not there (default: it must be there)')
    .option('--overwrite', 'what lies on the target may go (default: it must be seen to be empty)')
    .addOption(
      new Option(
        '--pivot <when>',
        'asked: keep both the same until `qshim volume pivot` (default: automatic, as soon as both are the same)',
      ).choices(keysOf(PIVOTS)),
    )
    .option('--speed <size>', 'bytes a second that are copied at most: 50M (default: no limit)', sizeInBytes())
    .option('--operation <id>', 'id of your choice for the operation, for repeats (default: the daemon makes one)')
    .option('--no-wait', NO_WAIT)
    .addHelpText(
      'after',
      `
Examples:
  qshim volume move sb1 data --qcow2 ./data.qcow2 --create
  qshim volume move sb1 data --block /dev/vg0/data --overwrite --speed 100M
  qshim volume move sb1 data --raw ./data-2.img --create --pivot asked --no-wait`,
    )
    .action(async (sandboxId, volumeId, { create, overwrite, pivot, speed, operation, wait }, command) => {
      await session.run({ sandboxId, volumeId }, async (api) => {
        const request = {
          ...{ sandboxId, volumeId, ...sourceOf(command.opts(), session.surroundings.cwd) },
          ...present({
            createIfMissing: create,
            overwrite,
            pivot: pivot === undefined ? undefined : PIVOTS[pivot],
            speedBytesPerS: speed,
            operationId: operation,
          }),
        };
        const begun = await api.call<Operation>((options, done) => api.volumes.Migrate(request, options, done));
        await follow(session, api, begun, wait, `moving ${volumeId} of ${sandboxId}`);
      });
    });
}

function addPivot(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('pivot')
    .description(
      'Have a volume that is being moved with `--pivot asked` put on its target as soon as both are the same.',
    )
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<volume>', 'id of the volume')
    .option('--no-wait', NO_WAIT)
    .addHelpText('after', '\nExample:\n  qshim volume pivot sb1 data')
    .action(async (sandboxId, volumeId, { wait }) => {
      await session.run({ sandboxId, volumeId }, async (api) => {
        const asked = await api.call<Operation>((options, done) =>
          api.volumes.Pivot({ sandboxId, volumeId }, options, done),
        );
        await follow(session, api, asked, wait, `moving ${volumeId} of ${sandboxId}`);
      });
    });
}

async function follow(
  session: Session,
  api: Connection,
  begun: Operation,
  wait: boolean,
  label: string,
): Promise<void> {
  const work = operationWork(label, begun.sandboxId, begun.operationId);
  const end = wait ? await session.waiting(work, () => followOperation(session, api, begun, label)) : begun;
  if (session.json) await session.document(end);
  else await session.say(operationSheet(end, session.widthMax));
}
