import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { costText, measureDaemon } from '../support/daemon-cost.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { ATTACKS, HostileGuest } from '../support/hostile-guest.ts';

/**
 * Guests that send all that they can, on every channel that they have: what does the daemon, which has one thread, do
 * for the others? A replay of two rows of the threat table: single bytes that cost 665 each, and 32 MiB answers and
 * events that kept the thread busy.
 */

const GUESTS = Number(process.env['QSHIM_TEST_HOSTILE_GUESTS'] ?? '50');
const IDLE_MS = 10_000;
const FLOOD_MS = 30_000;
const ASK_EVERY_MS = 500;
/** Where others share the CPUs, quick calls vary more than threefold by themselves. */
const P99_FLOOR_MS = 15;
const CPU_SHARE_MAX = 0.5;
const GROWTH_MAX_MIB = 200;

it(`${GUESTS} hostile guests leave the daemon to the others`, { timeout: 500_000 }, async (context) => {
  await using rig = await FakeVmRig.start({ sandboxes_max: GUESTS + 1, qmp_heartbeat_ms: 1000 });
  await rig.sandbox('good');
  const names = Array.from({ length: GUESTS }, (_, index) => `bad${index}`);
  for (const name of names) await rig.sandbox(name);
  const daemon = { socket: rig.daemon.socket, pid: rig.daemon.child.pid ?? 0 };
  const idle = await measureDaemon(daemon, 'good', IDLE_MS);
  context.diagnostic(`idle: ${costText(idle)}`);

  await using hostile = new AsyncDisposableStack();
  for (const [index, name] of names.entries()) {
    const attack = ATTACKS[index % ATTACKS.length] ?? 'events';
    hostile.use(new HostileGuest(await rig.qemu.vm(name), attack));
  }
  const asking = new AbortController();
  const asked = Promise.all(names.map((name) => askOn(rig, name, asking.signal)));
  const flooded = await measureDaemon(daemon, 'good', FLOOD_MS);
  context.diagnostic(`flooded: ${costText(flooded)}`);
  const over = (await rig.client.listSandboxes()).filter(({ guestOverBudget }) => guestOverBudget !== '');
  context.diagnostic(`over their budget: ${over.length}`);
  asking.abort();
  await hostile.disposeAsync();
  await asked;

  const both = `flooded: ${costText(flooded)}; idle: ${costText(idle)}`;
  assert.ok(flooded.p99 < Math.max(3 * idle.p99, P99_FLOOR_MS), both);
  assert.ok(flooded.cpuShare < CPU_SHARE_MAX, both);
  assert.ok(flooded.residentMib - idle.residentMib < GROWTH_MAX_MIB, both);
  assert.ok(over.length > 0 && over.every(({ sandboxId }) => sandboxId !== 'good'));
  assert.equal((await rig.attach('a', 0, 'good')).state, 'VOLUME_STATE_ATTACHED');
});

/** The daemon, and its callers, go on asking these guests. */
async function askOn(rig: FakeVmRig, sandboxId: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await Promise.race([rig.client.exec(sandboxId, '/bin/true').catch(() => undefined), sleep(5000)]);
    await sleep(ASK_EVERY_MS);
  }
}
