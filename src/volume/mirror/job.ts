import { isShimError } from '../../base/errors.ts';
import type { QmpClient } from '../../qmp/client.ts';
import { isQmpError } from '../../qmp/errors.ts';
import type { JobInfo } from '../../qmp/protocol.ts';
import { frontEndOf } from '../front-end/registry.ts';
import type { VolumeHost } from '../host.ts';
import type { MirrorOptions, Volume } from '../volume.ts';

/**
 * QEMU's job that copies the medium a volume's device is on to another (docs of QEMU: live-block-operations, mirror):
 *
 *     begin ─▶ running ─▶ ready: both are the same at any moment ─▶ complete ─▶ concluded: the device is on the other
 *                 └────────────┴─▶ cancel, or an error ─▶ concluded: the device is where it was
 *     concluded ─▶ look (deviceOn): what the job says is no proof ─▶ dismiss
 *
 * Each function begins by looking, so that it can be repeated: by a daemon that has lost a reply, or comes back.
 */

/** How often a job that says nothing is looked at. */
const POLL_MS = 500;

type Runs = Pick<QmpClient, 'run'>;

/** Which of a volume's media its device is on, as QEMU shows it; undefined: it shows none of them. */
export async function deviceOn(qmp: Runs, volume: Volume): Promise<number | undefined> {
  const path = frontEndOf().backendPath(volume.names.device);
  const entry = (await qmp.run('query-block')).find(({ qdev }) => qdev === path);
  const node = entry?.inserted?.['node-name'];
  const numbers = [volume.names.medium, ...volume.otherMedia.map(({ number }) => number)];
  // While a job runs, its filter is over the medium that it copies: the present one.
  if (numbers.some((number) => volume.namesOn({ number }).mirror.filter === node)) return volume.names.medium;
  return numbers.find((number) => volume.namesOn({ number }).root === node);
}

/** The job that copies to that medium; undefined: QEMU has none. */
export async function mirrorJob(qmp: Runs, volume: Volume, number: number): Promise<JobInfo | undefined> {
  const { job } = volume.namesOn({ number }).mirror;
  return (await qmp.run('query-jobs')).find(({ id }) => id === job);
}

/** Starts the copy, unless there is one. Called under the volume's mutex. @throws QmpError that QEMU refuses it with */
export async function beginMirror(qmp: Runs, volume: Volume, number: number, options: MirrorOptions): Promise<void> {
  if ((await mirrorJob(qmp, volume, number)) !== undefined) return;
  const { add } = volume.mirrorTo({ number }, options);
  await qmp.run(add.command, add.arguments);
}

/**
 * Follows the copy until `until` says so, or it has concluded.
 * @param options.progress called with every change, and every POLL_MS
 * @param options.nudge resolves when somebody wants `until` to be asked again
 * @returns the job as it is then; undefined: QEMU has none
 * @throws the signal's reason; QMP_LOST when the connection goes
 */
export async function followMirror(
  host: Pick<VolumeHost, 'link'>,
  volume: Volume,
  number: number,
  options: {
    readonly signal: AbortSignal;
    readonly progress: (job: JobInfo) => void;
    readonly until: (job: JobInfo) => boolean;
    readonly nudge?: () => Promise<void>;
  },
): Promise<JobInfo | undefined> {
  const { signal, progress, until, nudge } = options;
  const qmp = await host.link.ready();
  const { job: id } = volume.namesOn({ number }).mirror;
  using changes = qmp.listen('JOB_STATUS_CHANGE', ({ data }) => data.id === id);
  for (;;) {
    signal.throwIfAborted();
    const nudged = nudge?.();
    const job = await mirrorJob(qmp, volume, number);
    if (job !== undefined) progress(job);
    if (job === undefined || job.status === 'concluded' || until(job)) return job;
    const change = changes.next({ timeoutMs: POLL_MS, signal }).then(
      () => undefined,
      (error: unknown) => {
        if (!isShimError(error, 'DEADLINE_EXCEEDED')) throw error;
      },
    );
    await (nudged === undefined ? change : Promise.race([change, nudged]));
    // One that nobody waits for any more must not float.
    change.catch(() => undefined);
  }
}

/**
 * Has a copy that is in step put the device on its target; the job's end is to be followed. A job that is at rest for
 * a moment takes it later: false.
 */
export async function completeMirror(qmp: Runs, volume: Volume, number: number): Promise<boolean> {
  const job = await mirrorJob(qmp, volume, number);
  if (job?.status !== 'ready') return job === undefined || isPastReady(job);
  try {
    await qmp.run('job-complete', { id: job.id });
    return true;
  } catch (error) {
    if (isQmpError(error)) return false;
    throw error;
  }
}

function isPastReady({ status }: JobInfo): boolean {
  return status === 'waiting' || status === 'pending' || status === 'aborting' || status === 'concluded';
}

/** Has all copies of a volume cancelled that are under way. Their ends are to be followed. */
export async function cancelMirrors(qmp: Runs, volume: Volume): Promise<readonly number[]> {
  const numbers = [volume.names.medium, ...volume.otherMedia.map(({ number }) => number)].filter((each) => each !== 0);
  if (numbers.length === 0) return [];
  const jobs = new Map((await qmp.run('query-jobs')).map((job) => [job.id, job]));
  const running = numbers.filter((number) => {
    const job = jobs.get(volume.namesOn({ number }).mirror.job);
    return job !== undefined && job.status !== 'concluded';
  });
  for (const number of running) {
    const { job: id } = volume.namesOn({ number }).mirror;
    // One that has ended meanwhile is refused; the look tells.
    await qmp.run('job-cancel', { id }).catch((error: unknown) => {
      if (!isQmpError(error)) throw error;
    });
  }
  return running;
}

/** Takes away a job that has concluded, if there is one. */
export async function dismissMirror(qmp: Runs, volume: Volume, number: number): Promise<void> {
  const { job: id } = volume.namesOn({ number }).mirror;
  await qmp.run('job-dismiss', { id }).catch((error: unknown) => {
    if (!isQmpError(error)) throw error;
  });
}
