import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import { identify } from '../../src/qemu/process.ts';
import { fill, mountSmall, whyNoMounts } from '../faults/host.ts';
import { TestDaemon } from '../support/daemon.ts';
import { decodeRefusal } from '../support/errors.ts';
import { until } from '../support/until.ts';

const STATE_SIZE = '4m';

/** Has the daemon tell what it sees: the VM stops and goes on. */
async function makeEvents(daemon: TestDaemon, told: readonly Event__Output[]): Promise<void> {
  const before = told.length;
  for (let turn = 0; turn < 3; turn += 1) {
    // Whether a journal can be written does not matter: QEMU does it, and says so.
    await daemon.client.pauseSandbox('vm').catch(() => undefined);
    await daemon.client.resumeSandbox('vm').catch(() => undefined);
  }
  await until('events are told', () => told.length >= before + 4);
}

it('a full state directory: events go on, no number is told twice, and nobody goes on over a gap', async (context) => {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-t-'));
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(directory, { recursive: true, force: true }));
  const stateDir = join(directory, 's');
  await mkdir(stateDir, { mode: 0o700 });
  const why = await whyNoMounts(stateDir);
  if (why !== undefined) {
    context.skip(why);
    return;
  }
  cleanup.use(await mountSmall(stateDir, STATE_SIZE));
  const told: Event__Output[] = [];
  const watch = async (daemon: TestDaemon): Promise<void> => {
    const stream = daemon.client.events.watch({});
    stream.on('error', () => undefined);
    stream.on('data', (event: Event__Output) => told.push(event));
    await once(stream, 'metadata');
  };
  const last = (): Event__Output => {
    const event = told.at(-1);
    assert.ok(event !== undefined);
    return event;
  };
  /** What a watcher hears that goes on behind an event. */
  const refusedBehind = async (daemon: TestDaemon, event: Event__Output, epoch = event.epoch): Promise<string> => {
    const stream = daemon.client.events.watch({ afterSequence: event.sequence, afterEpoch: epoch });
    const [error] = (await once(stream, 'error')) as unknown[];
    return decodeRefusal(error).reason;
  };

  let daemon = await TestDaemon.start({ directory });
  await watch(daemon);
  const spec = { vcpus: 1, memoryMib: 128, readyWhen: 'READY_WHEN_STARTED', accelerator: 'ACCELERATOR_TCG' } as const;
  const { qemuPid } = await daemon.client.createSandbox({ sandboxId: 'vm', spec });
  cleanup.defer(async () => {
    await daemon.kill('SIGKILL');
    if ((await identify(qemuPid)) === undefined) return;
    process.kill(qemuPid, 'SIGKILL');
    await until('the VM has ended', async () => (await identify(qemuPid)) === undefined);
  });
  await makeEvents(daemon, told);
  const kept = last();
  const healed = await fill(stateDir);
  // The file's last page takes some more.
  await until('events that cannot be kept', async () => {
    await makeEvents(daemon, told);
    return last().epoch !== kept.epoch;
  });
  const unkept = last();

  // A daemon comes to the full directory, and starts.
  await daemon.kill('SIGKILL');
  daemon = await TestDaemon.start({ directory });
  for (const event of [kept, unkept]) {
    assert.equal(await refusedBehind(daemon, event), 'EVENTS_LOST');
    assert.equal(await refusedBehind(daemon, event, ''), 'EVENTS_LOST', 'a bare number');
  }
  await watch(daemon);
  await makeEvents(daemon, told);
  await daemon.kill('SIGKILL');
  daemon = await TestDaemon.start({ directory });
  await watch(daemon);
  await makeEvents(daemon, told);

  // There is room again: from here on another daemon knows what was told.
  await healed[Symbol.asyncDispose]();
  await makeEvents(daemon, told);
  await daemon.kill('SIGKILL');
  // Nothing comes any more.
  const again = last();
  daemon = await TestDaemon.start({ directory });
  const stream = daemon.client.events.watch({ afterSequence: again.sequence, afterEpoch: again.epoch });
  stream.on('error', () => undefined);
  stream.on('data', (event: Event__Output) => told.push(event));
  const { length } = told;
  await makeEvents(daemon, told);
  assert.deepEqual(
    told.slice(length, length + 2).map(({ epoch, sequence }) => [epoch, sequence]),
    [1, 2].map((more) => [again.epoch, again.sequence + more]),
  );
  const numbers = told.map(({ sequence }) => sequence);
  assert.equal(new Set(numbers).size, numbers.length, `a number came twice: ${numbers.join(' ')}`);
  await daemon.client.deleteSandbox('vm');
  await daemon.kill('SIGTERM');
});
