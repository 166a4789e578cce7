import { setTimeout as sleep } from 'node:timers/promises';
import { Samples, ratio, type Section } from './figures.ts';
import { DISK_BYTES, SETTLE_MS, startDaemon, timed, type Bench } from './rig.ts';

const LEVELS = [1, 16, 64, 128] as const;
const CREATES = [1, 10, 20] as const;
const PHASES = {
  journal: "qshim's record",
  'block-node': "QEMU's blockdev-add",
  device: "QEMU's device_add",
  driver: "the guest's driver",
  'find-in-guest': "the guest's name of the disk",
} as const;
/** Phases of an attach in which the guest works and qshim waits. */
const GUEST_PHASES: ReadonlySet<string> = new Set(['driver', 'find-in-guest']);

/** What an operation costs when there is much already. */
export async function growth(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using stack = new AsyncDisposableStack();
  const templates = `${bench.directory}/templates`;
  const daemon = stack.use(await startDaemon(bench, { config: { template: 'off', templates_dir: templates } }));
  const { client } = daemon;
  await client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2, template: 'TEMPLATE_OFF' } });
  const probe = await daemon.rawFile('probe.raw', DISK_BYTES);
  const rounds = bench.quick ? 2 : 15;
  let attached = 0;
  const column = (level: number): string => `volume ${level}`;
  for (const level of LEVELS) {
    const missing = Array.from({ length: level - 1 - attached }, (_, index) => `v${attached + index}`);
    attached = level - 1;
    if (missing.length > 0) {
      const volumes = await Promise.all(
        missing.map(async (volumeId) => ({
          volumeId,
          spec: { rawFile: { path: await daemon.rawFile(`${volumeId}.raw`, DISK_BYTES) } },
        })),
      );
      const results = await client.attachMany({ sandboxId: 'vm', volumes, timeoutMs: 120_000 });
      for (const { problem } of results) if (problem !== null) throw new Error(problem.message);
    }
    for (let round = -3; round < rounds; round += 1) {
      await sleep(SETTLE_MS);
      const start = performance.now();
      const volume = await client.attach({ sandboxId: 'vm', volumeId: 'probe', spec: { rawFile: { path: probe } } });
      const all = performance.now() - start;
      await sleep(SETTLE_MS);
      const detachMs = await timed(() => client.detach({ sandboxId: 'vm', volumeId: 'probe' }));
      if (round < 0) continue;
      const inGuest = volume.timings.filter(({ phase }) => GUEST_PHASES.has(phase));
      const guestMs = inGuest.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
      samples.add('attach, at the caller', column(level), all);
      samples.add('attach, without the waits for the guest', column(level), all - guestMs);
      for (const [phase, what] of Object.entries(PHASES)) {
        samples.add(`of it ${what}`, column(level), phaseOf(volume.timings, phase));
      }
      samples.add('detach, at the caller', column(level), detachMs);
    }
  }
  await client.deleteSandbox('vm');
  await creates(bench, samples);
  const hosts = samples.row('attach, without the waits for the guest');
  return {
    name: 'growth',
    title: 'Cost as work grows',
    rows: samples.rows(),
    ratios: [
      ratio(hosts, column(128), column(1), { kind: 'at most', value: 1.5 }),
      ratio(samples.row(`of it ${PHASES.device}`), column(128), column(1)),
      ratio(samples.row('attach, at the caller'), column(128), column(1)),
      ratio(samples.row('create, a clone'), `sandbox ${CREATES[2]}`, `sandbox ${CREATES[0]}`),
    ],
    notes: ['2 vCPUs. The waits for the guest are the phases "driver" and "find-in-guest" of the answer.'],
  };
}

function phaseOf(timings: readonly { phase: string; milliseconds: number }[], name: string): number {
  // A phase that did not happen: a disk that was announced is not asked about.
  return timings.find(({ phase }) => phase === name)?.milliseconds ?? 0;
}

/** Creates of clones beside 0, 9 and 19 others that idle. */
async function creates(bench: Bench, samples: Samples): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const templates = `${bench.directory}/templates`;
  const daemon = stack.use(await startDaemon(bench, { config: { template: 'off', templates_dir: templates } }));
  const create = (sandboxId: string): Promise<unknown> =>
    daemon.client.createSandbox({ sandboxId, spec: { memoryMib: 256, template: 'TEMPLATE_REQUIRED' } });
  await create('first');
  await daemon.client.deleteSandbox('first');
  let running = 0;
  for (const level of CREATES) {
    for (; running < level - 1; running += 1) await create(`vm${running}`);
    for (let round = 0; round < (bench.quick ? 1 : 5); round += 1) {
      samples.add('create, a clone', `sandbox ${level}`, await timed(() => create('probe')));
      await daemon.client.deleteSandbox('probe');
    }
  }
}
