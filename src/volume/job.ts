import { ShimError } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';
import type { JobProgress } from './model/facts.ts';

/** How often a job that says nothing is asked. */
const POLL_MS = 500;

/** QEMU measures how fast it derives keys; where the kernel's clock of CPU time is coarse, that fails now and then. */
const CLOCK_TRIES_MAX = 8;

/**
 * Runs a job that derives a key, again when QEMU could not measure how fast it does that: nothing has been written
 * then.
 * @throws as runJob
 */
export async function runKeyJob(...parameters: Parameters<typeof runJob>): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await runJob(...parameters);
      return;
    } catch (error) {
      const clock = error instanceof ShimError && error.message.includes('Unable to get accurate CPU usage');
      if (!clock || attempt === CLOCK_TRIES_MAX) throw error;
    }
  }
}

/**
 * Starts a QEMU job and follows it to its end. It is gone from QEMU afterwards.
 * @param progress called with every change of its status, and while it runs
 * @throws ShimError FAILED_PRECONDITION / QEMU_JOB_FAILED with what QEMU says; the signal's reason, and then the job
 *   goes on
 */
async function runJob(
  qmp: QmpClient,
  id: string,
  start: () => Promise<unknown>,
  options: { readonly signal: AbortSignal; readonly progress: (job: JobProgress) => void },
): Promise<void> {
  const { signal, progress } = options;
  using changes = qmp.listen('JOB_STATUS_CHANGE', (event) => event.data.id === id);
  await start();
  for (;;) {
    const job = (await qmp.run('query-jobs')).find((each) => each.id === id);
    if (job === undefined) throw jobFailed(id, 'it vanished');
    const { type, status, 'current-progress': current, 'total-progress': total, error } = job;
    progress({ type, status, current, total });
    if (status === 'concluded') {
      await qmp.run('job-dismiss', { id });
      if (error !== undefined) throw jobFailed(id, error);
      return;
    }
    await changes.next({ timeoutMs: POLL_MS, signal }).catch((problem: unknown) => {
      if (!(problem instanceof ShimError) || problem.code !== 'DEADLINE_EXCEEDED') throw problem;
    });
  }
}

function jobFailed(id: string, error: string): ShimError {
  return new ShimError('FAILED_PRECONDITION', `QEMU's job failed: ${error}`, {
    reason: 'QEMU_JOB_FAILED',
    metadata: { job: id },
  });
}
