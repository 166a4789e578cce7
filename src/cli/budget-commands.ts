/** `qshim budget ...` */
import type { CommandUnknownOpts } from '@commander-js/extra-typings';
import { visible } from '../base/visible.ts';
import type { Budget__Output as Budget } from '../grpc/generated/qshim/v1/Budget.ts';
import type { DeleteBudgetResponse__Output } from '../grpc/generated/qshim/v1/DeleteBudgetResponse.ts';
import type { ListBudgetsResponse__Output } from '../grpc/generated/qshim/v1/ListBudgetsResponse.ts';
import { present, wholeNumber } from './options.ts';
import type { Session } from './session.ts';
import { sizeInBytes } from './sizes.ts';
import { table } from './table.ts';
import { bytesText, NOTHING } from './values.ts';

const NAME = 'name of the budget';

export function addBudgetCommands(program: CommandUnknownOpts, session: Session): void {
  const budget = program
    .command('budget')
    .description('Budgets of I/O that volumes of any sandboxes share: make, look at, delete');
  budget
    .command('set')
    .description('Make a budget, or give it other totals; done when its volumes are held to them')
    .argument('<name>', NAME)
    .option('--iops <n>', 'operations a second of all its volumes (default: no limit)', wholeNumber(1))
    .option('--bps <size>', 'bytes a second of all its volumes, e.g. 100M (default: no limit)', sizeInBytes())
    .addHelpText('after', '\nExample:\n  qshim budget set tenant-a --bps 100M --iops 4000')
    .action(async (name, { iops, bps }) => {
      await session.run({}, async (api) => {
        const request = { name, ...present({ iops, bps }) };
        const set = await api.call<Budget>((options, done) => api.budgets.Set(request, options, done));
        await show(session, set);
      });
    });
  budget
    .command('get')
    .description('Show a budget: its totals, and what each of its volumes has of it now')
    .argument('<name>', NAME)
    .addHelpText('after', '\nExample:\n  qshim budget get tenant-a')
    .action(async (name) => {
      await session.run({}, async (api) => {
        await show(session, await api.call<Budget>((options, done) => api.budgets.Get({ name }, options, done)));
      });
    });
  budget
    .command('list')
    .description('List budgets')
    .addHelpText('after', '\nExample:\n  qshim budget list')
    .action(async () => {
      await session.run({}, async (api) => {
        const answer = await api.call<ListBudgetsResponse__Output>((options, done) =>
          api.budgets.List({}, options, done),
        );
        if (session.json) await session.document(answer);
        else await session.say(budgetTable(answer.budgets, session.widthMax));
      });
    });
  budget
    .command('delete')
    .description('Delete a budget that no volume draws on')
    .argument('<name>', NAME)
    .addHelpText('after', '\nExample:\n  qshim budget delete tenant-a')
    .action(async (name) => {
      await session.run({}, async (api) => {
        const answer = await api.call<DeleteBudgetResponse__Output>((options, done) =>
          api.budgets.Delete({ name }, options, done),
        );
        if (session.json) await session.document(answer);
        else await session.say(`${visible(name)}: ${answer.notFound ? 'there was none' : 'deleted'}`);
      });
    });
}

async function show(session: Session, budget: Budget): Promise<void> {
  if (session.json) {
    await session.document(budget);
    return;
  }
  const rows = budget.members.map(({ sandboxId, volumeId, share, iops, bps }) => [
    ...[visible(sandboxId), visible(volumeId), String(share), iopsText(iops), bpsText(bps)],
  ]);
  const members = table(['SANDBOX', 'VOLUME', 'SHARE', 'IOPS', 'BPS'], rows, session.widthMax);
  await session.say(`${visible(budget.name)}: iops ${iopsText(budget.iops)}, bps ${bpsText(budget.bps)}\n${members}`);
}

function budgetTable(budgets: readonly Budget[], widthMax: number | undefined): string {
  const rows = budgets.map(({ name, iops, bps, members }) => [
    ...[visible(name), iopsText(iops), bpsText(bps), String(members.length)],
  ]);
  return table(['BUDGET', 'IOPS', 'BPS', 'VOLUMES'], rows, widthMax);
}

function iopsText(iops: number): string {
  return iops === 0 ? NOTHING : String(iops);
}

function bpsText(bps: number): string {
  return bps === 0 ? NOTHING : `${bytesText(bps)}/s`;
}
