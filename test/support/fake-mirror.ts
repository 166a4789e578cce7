import type { JobStatus } from '../../src/qmp/protocol.ts';
import type { FakeVm } from './fake-qemu.ts';
import { NO_REPLY, QmpFailure } from './fake-qmp.ts';

interface FakeJob {
  readonly id: string;
  readonly device: string;
  readonly target: string;
  readonly filter: string;
  status: JobStatus;
  error?: string;
}

/**
 * QEMU's mirror jobs over the model of a fake VM, as QEMU 7.2 has them with auto-dismiss off: a filter over the copied
 * node while the job lasts, the device on the target once it has completed, the job concluded until it is dismissed.
 */
export class FakeMirror {
  readonly jobs = new Map<string, FakeJob>();
  readonly #vm: FakeVm;
  /** `manual`: a job that was begun runs until `ready`. */
  copying: 'at once' | 'manual';
  /** What a job that is to complete does. */
  completing: 'at once' | 'never' | { readonly error: string } = 'at once';

  constructor(vm: FakeVm, copying: 'at once' | 'manual' = 'at once') {
    this.#vm = vm;
    this.copying = copying;
    const { qmp, model } = vm;
    const deleteNode = qmp.handlerOf('blockdev-del');
    qmp
      .on('blockdev-mirror', (args, { reply }) => {
        const [id, device, target, filter] = ['job-id', 'device', 'target', 'filter-node-name'].map((name) =>
          String(args[name]),
        ) as [string, string, string, string];
        if (this.jobs.has(id)) throw new QmpFailure(`Job ID '${id}' already in use`);
        for (const node of [device, target]) {
          if (!model.nodes.has(node)) throw new QmpFailure(`Cannot find device='${node}' nor node-name='${node}'`);
        }
        const job: FakeJob = { id, device, target, filter, status: 'running' };
        this.jobs.set(id, job);
        const size = model.nodes.get(device)?.virtualSizeBytes ?? 0;
        model.nodes.set(filter, {
          options: { driver: 'mirror_top' },
          owner: '#job',
          child: device,
          virtualSizeBytes: size,
        });
        this.#moveDevice(device, filter);
        this.#tell(job, 'running');
        reply();
        if (this.copying === 'at once') setImmediate(() => this.ready(id));
        return NO_REPLY;
      })
      .on('query-jobs', () =>
        [...this.jobs.values()].map(({ id, status, error }) => ({
          ...{ id, type: 'mirror', status, 'current-progress': status === 'running' ? 1 : 4, 'total-progress': 4 },
          ...(error === undefined ? {} : { error }),
        })),
      )
      .on('job-complete', (args, { reply }) => {
        const job = this.#job(args['id']);
        if (job.status !== 'ready')
          throw new QmpFailure(`Job '${job.id}' in state '${job.status}' cannot accept command verb 'complete'`);
        reply();
        if (this.completing !== 'never')
          this.#conclude(job, this.completing === 'at once' ? undefined : this.completing.error);
        return NO_REPLY;
      })
      .on('job-cancel', (args, { reply }) => {
        const job = this.#job(args['id']);
        if (job.status === 'concluded')
          throw new QmpFailure(`Job '${job.id}' in state 'concluded' cannot accept command verb 'cancel'`);
        reply();
        this.#conclude(job, 'Operation canceled');
        return NO_REPLY;
      })
      .on('job-dismiss', (args) => {
        const job = this.#job(args['id']);
        if (job.status !== 'concluded')
          throw new QmpFailure(`Job '${job.id}' in state '${job.status}' cannot accept command verb 'dismiss'`);
        this.jobs.delete(job.id);
        this.#tell(job, 'null');
      })
      .on('blockdev-del', (args, context) => {
        const name = args['node-name'];
        const uses = [...this.jobs.values()].some((job) => job.status !== 'concluded' && job.target === name);
        if (uses) throw new QmpFailure(`Node '${String(name)}' is busy: block device is in use by block job: mirror`);
        return deleteNode(args, context);
      });
  }

  /** The only job. */
  get job(): FakeJob | undefined {
    return [...this.jobs.values()][0];
  }

  /** Both are the same now. */
  ready(id = this.job?.id ?? ''): void {
    const job = this.jobs.get(id);
    if (job?.status === 'running') this.#tell(job, 'ready');
  }

  /** The copy has failed: with an error of an I/O, told many times before. */
  fail(error: string): void {
    const { job } = this;
    if (job === undefined) throw new Error('there is no job');
    for (let time = 0; time < 500; time += 1) {
      this.#vm.qmp.emit('BLOCK_JOB_ERROR', { device: job.id, operation: 'write', action: 'report' });
    }
    this.#conclude(job, error);
  }

  #conclude(job: FakeJob, error: string | undefined): void {
    const { model } = this.#vm;
    model.nodes.delete(job.filter);
    this.#moveDevice(job.filter, error === undefined ? job.target : job.device);
    if (error !== undefined) job.error = error;
    this.#tell(job, error === undefined ? 'pending' : 'aborting');
    this.#tell(job, 'concluded');
  }

  #moveDevice(from: string, to: string): void {
    for (const [id, device] of this.#vm.model.devices) {
      if (device.args['drive'] === from)
        this.#vm.model.devices.set(id, { ...device, args: { ...device.args, drive: to } });
    }
  }

  #tell(job: FakeJob, status: JobStatus): void {
    job.status = status;
    this.#vm.qmp.emit('JOB_STATUS_CHANGE', { id: job.id, status });
  }

  #job(id: unknown): FakeJob {
    const job = this.jobs.get(String(id));
    if (job === undefined) throw new QmpFailure('Job not found');
    return job;
  }
}
