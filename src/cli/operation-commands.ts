/** `qshim operation ...` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import type { ListOperationsResponse__Output } from '../grpc/generated/qshim/v1/ListOperationsResponse.ts';
import type { Operation__Output as Operation } from '../grpc/generated/qshim/v1/Operation.ts';
import { followOperation, operationWork } from './operation-follow.ts';
import { operationLine, operationSheet, operationTable } from './operation-view.ts';
import { present } from './options.ts';
import type { Session } from './session.ts';

const ID = 'id of the operation';

export function addOperationCommands(program: CommandUnknownOpts, session: Session): void {
  const operation = program
    .command('operation')
    .alias('op')
    .description('What is done to volumes while they stay attached: look at, follow, cancel');
  addList(operation, session);
  addGet(operation, session);
  addWatch(operation, session);
  addCancel(operation, session);
}

function addList(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('list')
    .description('List operations: those under way, and of each volume the newest that have ended')
    .argument('[sandbox]', 'id of the sandbox (default: all sandboxes)')
    .argument('[volume]', 'id of the volume (default: all volumes)')
    .option('--running', 'only those under way (default: also those that have ended)')
    .addHelpText('after', '\nExamples:\n  qshim operation list\n  qshim operation list sb1 data --running')
    .action(async (sandboxId, volumeId, { running }) => {
      await session.run({ sandboxId, volumeId }, async (api) => {
        const answer = await api.call<ListOperationsResponse__Output>((options, done) =>
          api.operations.List(present({ sandboxId, volumeId, running }), options, done),
        );
        if (session.json) await session.document(answer);
        else await session.say(operationTable(answer.operations, session.widthMax));
      });
    });
}

function addGet(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('get')
    .description('Show one operation: how far it is, or how it ended')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<operation>', ID)
    .addHelpText('after', '\nExample:\n  qshim operation get sb1 move-1')
    .action(async (sandboxId, operationId) => {
      await session.run({ sandboxId }, async (api) => {
        const found = await api.call<Operation>((options, done) =>
          api.operations.Get({ sandboxId, operationId }, options, done),
        );
        await show(session, found);
      });
    });
}

function addWatch(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('watch')
    .description('Follow one operation to its end, and exit as it ends; or all of them until Ctrl-C')
    .argument('[sandbox]', 'id of the sandbox (default: all sandboxes)')
    .argument('[operation]', `${ID} (default: all)`)
    .addHelpText('after', '\nExamples:\n  qshim operation watch sb1 move-1\n  qshim operation watch --json')
    .action(async (sandboxId, operationId) => {
      if (sandboxId !== undefined && operationId !== undefined) {
        const work = operationWork(`operation ${operationId} of ${sandboxId}`, sandboxId, operationId);
        await session.run(work, async (api) => {
          await show(session, await followOperation(session, api, { sandboxId, operationId }, work.progress ?? ''));
        });
        return;
      }
      await session.run({ sandboxId }, async (api) => {
        await api.stream<Operation>(
          (options) => api.operations.Watch(present({ sandboxId }), options),
          (one) => (session.json ? session.jsonLine(one) : session.say(operationLine(one))),
        );
      });
    });
}

function addCancel(parent: CommandUnknownOpts, session: Session): void {
  parent
    .command('cancel')
    .description('Have an operation cancelled, and wait until it has ended: its volume is then as it was before.')
    .argument('<sandbox>', 'id of the sandbox')
    .argument('<operation>', ID)
    .addHelpText('after', '\nExample:\n  qshim operation cancel sb1 move-1')
    .action(async (sandboxId, operationId) => {
      const work = operationWork(`cancelling ${operationId} of ${sandboxId}`, sandboxId, operationId);
      await session.run(work, async (api) => {
        await api.call<Operation>((options, done) => api.operations.Cancel({ sandboxId, operationId }, options, done));
        await show(session, await ended(session, api, { sandboxId, operationId }, work.progress ?? ''));
      });
    });
}

/** As followOperation; that it was cancelled is what was asked for. */
async function ended(
  session: Session,
  api: Parameters<typeof followOperation>[1],
  request: { readonly sandboxId: string; readonly operationId: string },
  label: string,
): Promise<Operation> {
  try {
    return await followOperation(session, api, request, label);
  } catch (error) {
    const now = await api.call<Operation>((options, done) => api.operations.Get(request, options, done));
    if (now.state === 'OPERATION_STATE_CANCELLED') return now;
    throw error;
  }
}

async function show(session: Session, operation: Operation): Promise<void> {
  if (session.json) await session.document(operation);
  else await session.say(operationSheet(operation, session.widthMax));
}
