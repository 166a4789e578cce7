import { setTimeout as sleep } from 'node:timers/promises';
import { Samples, type Section } from './figures.ts';
import { Libvirt } from './libvirt.ts';
import { residentKib, startDaemon, type Bench } from './rig.ts';

const COUNTS = [1, 5, 20] as const;
const FIRST = 5;
const LAST = 20;
const SETTLE_MS = 3000;

/**
 * Resident memory of the process that manages: qshimd and libvirtd, with 1, 5 and 20 VMs. The VMs' own is not in it.
 */
export async function memory(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using stack = new AsyncDisposableStack();
  const templates = `${bench.directory}/templates`;
  const daemon = stack.use(await startDaemon(bench, { config: { template: 'off', templates_dir: templates } }));
  const libvirt = stack.use(await Libvirt.start(bench.directory));
  const rows: number[] = [];
  let running = 0;
  for (const count of COUNTS) {
    for (; running < count; running += 1) {
      // Clones, so that 20 guests need not boot at once. Each has a volume: its records and listeners count too.
      const sandboxId = `vm${running}`;
      await daemon.client.createSandbox({ sandboxId, spec: { memoryMib: 256, template: 'TEMPLATE_REQUIRED' } });
      const path = await daemon.rawFile(`${sandboxId}.raw`);
      await daemon.client.attach({ sandboxId, volumeId: 'data', spec: { rawFile: { path } } });
      await libvirt.startDomain(`vm${running}`, { vcpus: 1, ports: 4, paused: true });
    }
    await sleep(SETTLE_MS);
    const what = `resident memory with ${count} VMs`;
    const ours = await residentKib(daemon.child.pid ?? 0);
    rows.push(ours);
    samples.add(what, 'qshimd', ours, 'KiB');
    samples.add(what, 'libvirtd', await residentKib(libvirt.daemon.pid ?? 0), 'KiB');
  }
  const [, atFive = Number.NaN, atTwenty = Number.NaN] = rows;
  return {
    name: 'memory',
    title: 'Memory of the management process',
    rows: samples.rows(),
    ratios: [
      {
        what: `qshimd: MiB for each sandbox after the ${FIRST}th`,
        value: (atTwenty - atFive) / (LAST - FIRST) / 1024,
        bar: { kind: 'at most', value: 1 },
      },
    ],
    notes: ["Each sandbox has one attached volume. libvirt's VMs are paused: they need no guest for this."],
  };
}
