import type { Budget } from '../grpc/generated/qshim/v1/Budget.ts';
import type { BudgetsHandlers } from '../grpc/generated/qshim/v1/Budgets.ts';
import { unary, type Edge } from '../grpc/handlers.ts';
import type { BudgetView } from '../sandbox/io-budgets.ts';
import type { SandboxManager } from '../sandbox/manager.ts';
import { Visibility } from './visibility.ts';

/** Budgets of I/O; of their volumes a caller is told of those that it may see. */
export function budgetsHandlers(manager: SandboxManager, edge: Edge): BudgetsHandlers {
  const { ioBudgets } = manager;
  return {
    Set: unary(edge, 'Budgets.Set', async ({ name, iops, bps }, { permit }) =>
      budgetMessage(await ioBudgets.set({ name, iops, bps }), new Visibility(manager, permit)),
    ),
    Get: unary(edge, 'Budgets.Get', ({ name }, { permit }) =>
      Promise.resolve(budgetMessage(ioBudgets.get(name), new Visibility(manager, permit))),
    ),
    List: unary(edge, 'Budgets.List', (_request, { permit }) => {
      const visible = new Visibility(manager, permit);
      return Promise.resolve({ budgets: ioBudgets.list().map((budget) => budgetMessage(budget, visible)) });
    }),
    Delete: unary(edge, 'Budgets.Delete', async ({ name }) => ({ notFound: !(await ioBudgets.delete(name)) })),
  };
}

function budgetMessage({ name, iops, bps, members }: BudgetView, visible: Visibility): Budget {
  return {
    ...{ name, iops, bps },
    members: members
      .filter(({ sandboxId }) => visible.shows(sandboxId))
      .map(({ sandboxId, volume: { id, draw, spec, limits } }) => ({
        ...{ sandboxId, volumeId: id, share: (draw ?? spec.draw)?.share ?? 0 },
        ...{ iops: limits?.iops ?? 0, bps: limits?.bps ?? 0 },
      })),
  };
}
