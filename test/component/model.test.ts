import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Deadline } from '../../src/base/deadline.ts';
import { assertModel, isCampaign, modelParameters, type Regression } from '../support/model-seed.ts';
import { ModelHost } from '../support/model-run.ts';
import { sequences, type Step } from '../support/model-steps.ts';

/**
 * Random sequences of calls, faults, restarts and exits against the real daemon over a fake QEMU. After each step the
 * daemon's records must agree with QEMU's own lists, the events and the journal on disk (model-oracle.ts).
 */

const LENGTH_MAX = 14;
/** Sequences that are drawn; for how long more of them are begun, and how many at least. A campaign sets QSHIM_RUNS. */
const RUNS = 25;
const BEGIN_MS = 12_000;
const RUNS_MIN = 3;

/** Sequences that once failed. Kept by seed and path, or as the steps themselves once they have been shrunk. */
const regressions: readonly Regression[] = [];
const shortest: readonly { readonly found: string; readonly steps: readonly Step[] }[] = [];

describe('random sequences against the daemon', { timeout: 3_600_000 }, () => {
  it('records, QEMU, events and journal agree after each step', async (context) => {
    await using host = new ModelHost();
    const parameters = modelParameters<[readonly Step[]]>(RUNS, false);
    const deadline = Deadline.after(isCampaign() ? Number.MAX_SAFE_INTEGER : BEGIN_MS);
    let count = 0;
    const run = async (steps: readonly Step[]): Promise<void> => {
      if (deadline.expired && count >= RUNS_MIN) return;
      count += 1;
      await host.run(steps);
    };
    await assertModel(fc.asyncProperty(sequences(LENGTH_MAX), run), parameters);
    context.diagnostic(`seed ${parameters.seed ?? ''}, ${count} sequences`);
  });

  for (const { found, steps } of shortest) {
    it(`regression: ${found}`, async () => {
      await using host = new ModelHost();
      await host.run(steps);
    });
  }

  for (const { found, seed, path } of regressions) {
    it(`regression: ${found}`, async () => {
      await using host = new ModelHost();
      await assertModel(
        fc.asyncProperty(sequences(LENGTH_MAX), (steps) => host.run(steps)),
        { seed, path, endOnFailure: true },
      );
    });
  }
});
