import { setTimeout as sleep } from 'node:timers/promises';
import { cpuSeconds } from '../support/daemon-cost.ts';
import { DISK_BYTES, startDaemon, timed, type Bench } from './rig.ts';
import { Samples, type Section } from './figures.ts';

const COUNTS = [1, 100] as const;
/** Looks begin at least 100 ms apart (volume/stats/looks.ts): what comes later does not wait for that. */
const APART_MS = 120;

/** What a look at what QEMU has counted costs, by the number of volumes. */
export async function stats(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using daemon = await startDaemon(bench, { config: { stats_period_ms: 0 } });
  await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1, template: 'TEMPLATE_OFF' } });
  const pid = daemon.child.pid ?? 0;
  const looks = bench.quick ? 5 : 50;
  let attached = 0;
  for (const count of COUNTS) {
    const who = `${count} volumes`;
    const volumes = [];
    for (; attached < count; attached += 1) {
      const path = await daemon.rawFile(`${attached}.raw`, DISK_BYTES);
      volumes.push({ volumeId: `v${attached}`, spec: { rawFile: { path }, queues: 1 } });
    }
    await daemon.client.attachMany({ sandboxId: 'vm', volumes });
    for (const [what, request] of [
      ['told as it was seen last', {}],
      ['look at the counters, limits and bitmaps', { fresh: true }],
    ] as const) {
      await daemon.client.getStats({ sandboxId: 'vm', fresh: true });
      const before = await cpuSeconds(pid);
      for (let look = 0; look < looks; look += 1) {
        await sleep(APART_MS);
        samples.add(what, who, await timed(() => daemon.client.getStats({ sandboxId: 'vm', ...request })));
      }
      const cpuMs = ((await cpuSeconds(pid)) - before) * 1000;
      samples.add(`${what}: the daemon's CPU`, who, cpuMs / looks);
    }
    const idle = await cpuSeconds(pid);
    await sleep(looks * APART_MS);
    samples.add("nothing, for as long: the daemon's CPU", who, ((await cpuSeconds(pid)) - idle) * (1000 / looks));
  }
  return {
    name: 'stats',
    title: 'Metrics of volumes',
    rows: samples.rows(),
    ratios: [],
    notes: [
      `Stats.Get, ${looks} times, ${APART_MS} ms apart, with histograms; CPU is the mean of one, with what the pause costs.`,
      'Each period there is a look at the counters alone, without the answer to a caller.',
    ],
  };
}
