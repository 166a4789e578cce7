import type { FakeQmp } from './fake-qmp.ts';

/** What a change of keys does to the image. What it gives is what the job fails with. */
export type Amend = (options: Readonly<Record<string, unknown>>) => Promise<string | undefined>;

/** Jobs that make LUKS images and change their keys, for a QEMU that is not there. */
export function serveAmend(qmp: FakeQmp, amend: Amend): void {
  const jobs = new Map<string, { status: string; error?: string }>();
  const begin = (id: string, work: Promise<string | undefined>): void => {
    const job: { status: string; error?: string } = { status: 'running' };
    jobs.set(id, job);
    void work.then((error) => {
      if (error !== undefined) job.error = error;
      job.status = 'concluded';
      qmp.emit('JOB_STATUS_CHANGE', { id, status: 'concluded' });
    });
  };
  qmp
    .on('blockdev-create', (args) => begin(String(args['job-id']), Promise.resolve(undefined)))
    .on('x-blockdev-amend', (args) =>
      begin(String(args['job-id']), amend(args['options'] as Readonly<Record<string, unknown>>)),
    )
    .on('query-jobs', () =>
      [...jobs].map(([id, job]) => ({ id, type: 'amend', 'current-progress': 0, 'total-progress': 1, ...job })),
    )
    .on('job-dismiss', (args) => void jobs.delete(String(args['id'])));
}
