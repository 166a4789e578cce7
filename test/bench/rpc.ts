import { ApiClient } from '../support/daemon.ts';
import { Samples, type Section } from './figures.ts';
import { startDaemon, type Bench } from './rig.ts';

const CLIENTS = [1, 10, 100] as const;

/** Throughput and latency of Get with many clients, each on a connection of its own, each with one call at a time. */
export async function rpc(bench: Bench): Promise<Section> {
  const samples = new Samples();
  await using daemon = await startDaemon(bench);
  await daemon.client.createSandbox({
    sandboxId: 'vm',
    spec: { memoryMib: 256, template: 'TEMPLATE_OFF' },
  });
  const forMs = bench.quick ? 1000 : 5000;
  for (const count of CLIENTS) {
    const clients = Array.from({ length: count }, () => new ApiClient(daemon.socket));
    await Promise.all(clients.map((client) => client.getSandbox('vm')));
    const end = performance.now() + forMs;
    const start = performance.now();
    let calls = 0;
    await Promise.all(
      clients.map(async (client) => {
        while (performance.now() < end) {
          const called = performance.now();
          await client.getSandbox('vm');
          samples.add('Get, latency', `${count} clients`, performance.now() - called);
          calls += 1;
        }
      }),
    );
    samples.add('Get, throughput', `${count} clients`, (calls / (performance.now() - start)) * 1000, '1/s');
    for (const client of clients) client[Symbol.dispose]();
  }
  return {
    name: 'rpc',
    title: 'RPC: Get',
    rows: samples.rows(),
    ratios: [],
    notes: ['The clients share one Node.js process, and the machine with the daemon and an idle guest.'],
  };
}
