import { setTimeout as sleep } from 'node:timers/promises';
import type { TestDaemon } from '../support/daemon.ts';
import { Samples, median, ratio, type Section } from './figures.ts';
import { Libvirt } from './libvirt.ts';
import { startVm, testLaunch } from '../support/template-vm.ts';
import { startDaemon, timed, type Bench } from './rig.ts';

const VCPUS = 1;
/** A clone that was made for the pool is at rest after so long. */
const REFILL_MS = 1500;
const TRIES_MAX = 20;

/**
 * From nothing to a guest whose agent answers: cold boots, clones of a template, the warm pool, libvirt; and QEMU's own
 * start.
 */
export async function start(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using stack = new AsyncDisposableStack();
  const templates = `${bench.directory}/templates`;
  const daemon = stack.use(
    await startDaemon(bench, { config: { template: 'auto', templates_dir: templates, template_delay_ms: 1 } }),
  );
  const libvirt = stack.use(await Libvirt.start(bench.directory));
  const pooled = stack.use(
    await startDaemon(bench, { config: { templates_dir: `${bench.directory}/pool-templates`, pool_size: 1 } }),
  );
  const { client } = daemon;
  const create = async (sandboxId: string, template: 'TEMPLATE_OFF' | 'TEMPLATE_AUTO' | 'TEMPLATE_REQUIRED') =>
    await client.createSandbox({ sandboxId, spec: { vcpus: VCPUS, template } });
  bench.say('start: the template is being made');
  const made = await timed(async () => {
    await create('first', 'TEMPLATE_REQUIRED');
    await client.deleteSandbox('first');
  });
  await fromPool(pooled);
  const rounds = bench.quick ? 2 : 7;
  const row = 'start to agent-ready';
  for (let round = 0; round < rounds; round += 1) {
    samples.add(row, 'qshim, cold boot', await timed(() => create('cold', 'TEMPLATE_OFF')));
    await client.deleteSandbox('cold');
    for (let clone = 0; clone < 3; clone += 1) {
      const ms = await timed(() => create('clone', 'TEMPLATE_REQUIRED'));
      samples.add(row, 'qshim, clone', ms);
      await client.deleteSandbox('clone');
    }
    samples.add(row, 'qshim, warm pool', await fromPool(pooled));
    samples.add(
      row,
      'libvirt, cold boot',
      await timed(async () => {
        await libvirt.startDomain('start', { vcpus: VCPUS, ports: 4 });
        await libvirt.untilAgent('start');
      }),
    );
    await libvirt.destroy('start');
    samples.add('spawn to QMP greeting', 'QEMU alone', await greeting(bench));
  }
  const ready = samples.row(row);
  const greet = samples.row('spawn to QMP greeting');
  return {
    name: 'start',
    title: 'Start of a sandbox',
    rows: samples.rows(),
    ratios: [
      ratio(ready, 'qshim, cold boot', 'qshim, clone', { kind: 'at least', value: 15 }),
      {
        what: 'start to agent-ready of a clone / spawn to QMP greeting of QEMU alone',
        value: median(ready?.samples['qshim, clone'] ?? []) / median(greet?.samples['QEMU alone'] ?? []),
        bar: { kind: 'at most', value: 3 },
      },
      ratio(ready, 'qshim, cold boot', 'qshim, warm pool'),
      ratio(ready, 'libvirt, cold boot', 'qshim, cold boot'),
    ],
    notes: [
      `The first clone, with the making of its template, took ${Math.round(made)} ms.`,
      'QEMU alone: the same kind of VM with nothing done but the start, up to the greeting on its QMP socket.',
    ],
  };
}

/**
 * How long a sandbox from the pool took. One that came before its pool was filled does not count, and is made again.
 */
async function fromPool({ client }: TestDaemon): Promise<number> {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    await sleep(REFILL_MS);
    const begun = performance.now();
    const { start: how } = await client.createSandbox({
      sandboxId: 'pooled',
      spec: { vcpus: VCPUS, template: 'TEMPLATE_REQUIRED' },
    });
    const milliseconds = performance.now() - begun;
    await client.deleteSandbox('pooled');
    if (how?.kind === 'START_KIND_POOL') return milliseconds;
  }
  throw new Error('the pool was never filled');
}

/** QEMU with the arguments of a sandbox, up to its greeting. */
async function greeting(bench: Bench): Promise<number> {
  await using stack = new AsyncDisposableStack();
  const milliseconds = await timed(async () => {
    stack.use(await startVm({ ...testLaunch, vcpus: VCPUS, memoryMib: 512 }));
  });
  bench.say(`start: QEMU greeted after ${Math.round(milliseconds)} ms`);
  return milliseconds;
}
