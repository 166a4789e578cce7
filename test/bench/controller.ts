import { setTimeout as sleep } from 'node:timers/promises';
import { Samples, ratio, type Section } from './figures.ts';
import { BareScript } from './bare.ts';
import { DISK_BYTES, SETTLE_MS, timed, withDirectory, type Bench } from './rig.ts';
import { startPlainVm } from './plain-vm.ts';

/** What the hotplug controller costs: ACPI, as qshim uses it, and PCIe's own, whose detach has a fixed delay of 5 s. */
export async function controller(bench: Bench): Promise<Section> {
  const samples = new Samples();
  const rounds = bench.quick ? 1 : 5;
  for (const [name, acpi] of [
    ['ACPI', true],
    ['native PCIe', false],
  ] as const) {
    await withDirectory(bench.directory, async (directory) => {
      await using stack = new AsyncDisposableStack();
      const vm = stack.use(await startPlainVm(directory, { acpiHotplug: acpi, diskBytes: DISK_BYTES }));
      const script = stack.use(await BareScript.connect(directory, 1));
      for (let round = 0; round < rounds; round += 1) {
        const disk = { id: `disk${round}`, bus: 'port0', addr: '0x0', path: vm.diskPath };
        samples.add('attach 1, the driver is live', name, await timed(() => script.attach([disk])));
        await sleep(10 * SETTLE_MS);
        samples.add('detach 1, gone', name, await timed(() => script.detach([disk])));
        await sleep(10 * SETTLE_MS);
      }
    });
  }
  return {
    name: 'controller',
    title: 'Hotplug through ACPI and through native PCIe',
    rows: samples.rows(),
    ratios: [ratio(samples.row('detach 1, gone'), 'native PCIe', 'ACPI')],
    notes: [
      'The bare script, on a pcie-root-port. qshim demands ACPI hotplug of its QEMU and looks whether it has it.',
    ],
  };
}
