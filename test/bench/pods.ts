import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { podConfig } from '../support/containerd/cri.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';
import { Samples, ratio, type Section } from './figures.ts';
import type { Bench } from './rig.ts';

/** How a pod's sandbox starts, and what its annotation and its sandbox then say. */
const STARTS = {
  'cold boot': { template: 'off', kind: 'START_KIND_COLD_BOOT' },
  clone: { template: 'required', kind: 'START_KIND_CLONE' },
  'warm pool': { template: 'required', kind: 'START_KIND_POOL' },
} as const;
type Start = keyof typeof STARTS;

const LOG_LOOK_MS = 2;
const REFILL_MS = 1000;
const WHOLE = 'RunPodSandbox to the first output of its container';

/**
 * Pods through CRI, by a real containerd 2.1: from kubelet's first call to the first line in the container's log. The
 * two containerds, one of them before a daemon with a warm pool, serve by turns.
 */
export async function pods(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using stack = new AsyncDisposableStack();
  const settings = {
    log_level: 'info',
    templates_dir: `${bench.directory}/templates`,
    template_delay_ms: 1,
    containerd_annotations: 'template',
  };
  const start = async (config: Record<string, string | number>): Promise<ContainerdRig> => {
    const rig = stack.use(await ContainerdRig.start('2.1', { ...settings, ...config }));
    bench.clearedWhenInterrupted.push(rig.directory);
    await mkdir(join(rig.directory, 'logs'));
    return rig;
  };
  const plain = await start({});
  const pooled = await start({ pool_size: 1 });
  const rigs: Readonly<Record<Start, ContainerdRig>> = { 'cold boot': plain, clone: plain, 'warm pool': pooled };
  bench.say('pods: the template is being made');
  await onePod(plain, 'clone', 'first');
  const rounds = bench.quick ? 2 : 7;
  for (let round = 0; round < rounds; round += 1) {
    for (const how of Object.keys(STARTS) as Start[]) {
      const figures = await untilStarted(rigs[how], how, round);
      samples.add('RunPodSandbox', how, figures.sandboxMs);
      samples.add('CreateContainer, StartContainer', how, figures.containerMs);
      samples.add('start to the first line in the log', how, figures.outputMs);
      samples.add(WHOLE, how, figures.sandboxMs + figures.containerMs + figures.outputMs);
    }
  }
  const whole = samples.row(WHOLE);
  return {
    name: 'pods',
    title: 'A pod and its container, through CRI',
    rows: samples.rows(),
    ratios: [ratio(whole, 'cold boot', 'clone'), ratio(whole, 'cold boot', 'warm pool')],
    notes: ["The container's root file system is a blockfile snapshot, hot-plugged. The log is looked at every 2 ms."],
  };
}

interface Figures {
  readonly sandboxMs: number;
  readonly containerMs: number;
  readonly outputMs: number;
}

/** Takes until the sandbox was started that way: a pool is filled in the background. */
async function untilStarted(rig: ContainerdRig, how: Start, round: number): Promise<Figures> {
  for (let attempt = 0; ; attempt += 1) {
    const { kind, ...figures } = await onePod(rig, how, `${STARTS[how].kind}-${round}-${attempt}`.toLowerCase());
    if (kind === STARTS[how].kind) return figures;
    await sleep(REFILL_MS);
  }
}

async function onePod(rig: ContainerdRig, how: Start, name: string): Promise<Figures & { readonly kind: string }> {
  const logDirectory = join(rig.directory, 'logs');
  const config = { ...podConfig(name, { 'io.qshim.template': STARTS[how].template }), logDirectory };
  const begun = performance.now();
  const podId = await rig.cri.runPod(config);
  const sandbox = performance.now();
  const command = ['/bin/sh', '-c', 'echo first; sleep 1000'];
  const id = await rig.cri.createContainer(podId, config, 'main', { command, logPath: `${name}.log` });
  await rig.cri.startContainer(id);
  const started = performance.now();
  const log = join(logDirectory, `${name}.log`);
  while (!(await readFile(log, 'utf8').catch(() => '')).includes('first')) await sleep(LOG_LOOK_MS);
  const output = performance.now();
  const kind = (await rig.daemon.client.getSandbox(podId)).start?.kind ?? '';
  await rig.cri.stopContainer(id, 0);
  await rig.cri.stopPod(podId);
  await rig.cri.removePod(podId);
  return { kind, sandboxMs: sandbox - begun, containerMs: started - sandbox, outputMs: output - started };
}
