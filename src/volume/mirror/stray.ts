import { sleep } from '../../base/deadline.ts';
import type { QmpClient } from '../../qmp/client.ts';
import { isQmpError } from '../../qmp/errors.ts';
import { generationOf } from '../model/names.ts';

const POLL_MS = 100;

/**
 * Ends the copies of a volume whose record is lost: nobody knows what they are for, and their targets are left-overs.
 * @throws the signal's reason; what the connection throws
 */
export async function endStrayMirrors(
  qmp: Pick<QmpClient, 'run'>,
  generation: number,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const jobs = (await qmp.run('query-jobs')).filter(
      ({ id, type }) => type === 'mirror' && generationOf(id) === generation,
    );
    if (jobs.length === 0) return;
    for (const { id, status } of jobs) {
      const command = status === 'concluded' ? 'job-dismiss' : 'job-cancel';
      await qmp.run(command, { id }).catch((error: unknown) => {
        if (!isQmpError(error)) throw error;
      });
    }
    await sleep(POLL_MS, signal);
  }
}
