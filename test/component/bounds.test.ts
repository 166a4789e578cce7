import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { status, type ClientReadableStream } from '@grpc/grpc-js';
import type { OptionName } from '../../src/config.ts';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import type { VolumeEvent__Output } from '../../src/grpc/generated/qshim/v1/VolumeEvent.ts';
import { ApiClient } from '../support/daemon.ts';
import { assertRefusal, decodeRefusal, isServiceError, refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/**
 * Every bound, met and passed: one too many is refused with its reason, those within the bound do not notice, and when
 * the load is gone all is as before.
 */

const EXHAUSTED = 'RESOURCE_EXHAUSTED';
/** Events of so many attaches and detaches, some 3 KB each, are far more than gRPC and the kernel hold on their way. */
const STALLED_CYCLES = 60;

interface Bounded extends AsyncDisposable {
  readonly rig: FakeVmRig;
  readonly vm: FakeVm;
}

async function start(settings: Partial<Record<OptionName, string | number>>): Promise<Bounded> {
  const rig = await FakeVmRig.start(settings);
  const vm = await rig.sandbox();
  await until('the agent is ready', async () => (await rig.client.getSandbox('one')).agentReady || undefined);
  return { rig, vm, [Symbol.asyncDispose]: () => rig[Symbol.asyncDispose]() };
}

/** A stream of events, opened before this returns. */
async function watch(client: ApiClient, afterSequence = 0): Promise<ClientReadableStream<Event__Output>> {
  const stream = client.events.watch({ afterSequence });
  const opened = once(stream, 'metadata');
  const failed = once(stream, 'error').then(([error]: unknown[]) => Promise.reject(asError(error)));
  failed.catch(() => undefined);
  await Promise.race([opened, failed]);
  return stream;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

describe('calls', { timeout: 120_000 }, () => {
  it('calls_max: one too many is refused; those in progress end well; a caller that leaves frees its place', async () => {
    await using bounded = await start({ calls_max: 4 });
    const { rig, vm } = bounded;
    vm.model.driver = 'manual';
    const attaches = ['a', 'b', 'c'].map((name) => rig.attach(name));
    await until('three devices', () => (vm.model.devices.size === 3 ? true : undefined));
    const leaver = rig.client.volumes.detach({ sandboxId: 'one', volumeId: 'none' }, () => undefined);
    leaver.cancel();
    const path = await rig.daemon.rawFile('d', 65_536);
    const fourth = Promise.withResolvers<unknown>();
    const call = rig.client.volumes.attach(
      { sandboxId: 'one', volumeId: 'd', spec: { rawFile: { path } } },
      fourth.resolve,
    );
    await until('four devices', () => (vm.model.devices.size === 4 ? true : undefined));

    for (const extra of [
      () => rig.client.getVolume('one', 'a'),
      () => rig.client.listSandboxes(),
      () => rig.detach('a'),
    ]) {
      const seen = await refusal(extra());
      assertRefusal(seen, { code: EXHAUSTED, reason: 'TOO_MANY_CALLS' });
      assert.equal(seen.metadata['max'], '4');
    }
    call.cancel();
    await fourth.promise;
    const present = await until('the place is free', () => rig.client.listVolumes('one').catch(() => undefined));
    assert.equal(present.length, 4, 'the attach whose caller left goes on');
    for (const id of vm.model.devices.keys()) vm.model.driverLive(id);
    for (const attach of attaches) assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
    await rig.until('d', 'VOLUME_STATE_ATTACHED');
  });

  it('request_bytes_max: a longer request is refused, also on a connection that is in use', async () => {
    await using bounded = await start({ request_bytes_max: 4096 });
    const { rig } = bounded;
    const error: unknown = await rig.client.exec('one', 'x'.repeat(10_000)).catch((problem: unknown) => problem);
    assert.ok(isServiceError(error) && error.code === status.RESOURCE_EXHAUSTED, String(error));
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('device_queue_max: callers that wait for one volume; those of another do not notice', async () => {
    await using bounded = await start({ device_queue_max: 2 });
    const { rig, vm } = bounded;
    await Promise.all([rig.attach('a'), rig.attach('b')]);
    const held = vm.hold('blockdev-del');
    const first = rig.detach('a');
    await held.came;
    const waiting = [rig.detach('a'), rig.detach('a')];
    const seen = await refusal(rig.detach('a'));
    assertRefusal(seen, { code: EXHAUSTED, reason: 'QUEUE_FULL' });
    assert.equal(seen.metadata['max'], '2');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING', 'a look waits for nobody');
    held.release();
    for (const detach of [first, ...waiting]) assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED', 'the queue is empty again');
    assert.equal((await rig.detach('b')).state, 'VOLUME_STATE_REMOVED');
  });

  it('sandboxes_max: one more is refused until one is deleted', async () => {
    await using bounded = await start({ sandboxes_max: 1 });
    const { rig } = bounded;
    const seen = await refusal(
      rig.client.createSandbox({ sandboxId: 'two', spec: { accelerator: 'ACCELERATOR_TCG' } }),
    );
    assertRefusal(seen, { code: EXHAUSTED, reason: 'TOO_MANY_SANDBOXES' });
    assert.equal((await rig.attach('a')).state, 'VOLUME_STATE_ATTACHED', 'the one that is there works');
    await rig.client.deleteSandbox('one');
    await rig.sandbox('two');
    assert.deepEqual(
      (await rig.client.listSandboxes()).map(({ sandboxId }) => sandboxId),
      ['two'],
    );
  });

  it('removed_retained: the oldest removed volumes are forgotten', async () => {
    await using bounded = await start({ removed_retained: 2 });
    const { rig } = bounded;
    for (const name of ['a', 'b', 'c']) {
      await rig.attach(name);
      await rig.detach(name);
    }
    assert.deepEqual(
      (await rig.client.listVolumes('one')).map(({ volumeId }) => volumeId),
      ['b', 'c'],
    );
    assertRefusal(await refusal(rig.detach('a')), { code: 'NOT_FOUND', reason: 'VOLUME_NOT_FOUND' });
    assert.equal((await rig.detach('c')).state, 'VOLUME_STATE_REMOVED');
  });
});

describe('QEMU and the guest', { timeout: 120_000 }, () => {
  it('qmp_pending_max: a monitor that reads nothing fills up and says so', async () => {
    // An attach has three commands on their way at once; eight of them have more than there is room for.
    await using bounded = await start({ qmp_pending_max: 6 });
    const { rig, vm } = bounded;
    await rig.attach('first');
    await rig.detach('first');
    vm.qmp.pauseReading();
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    const attaches = names.map((name) => rig.attach(name));
    const settled = Promise.allSettled(attaches);
    // They answer once what they did is undone, for which there is no room either.
    await until('the queue is full', async () => {
      const volumes = await rig.client.listVolumes('one');
      return volumes.some(({ cause }) => cause?.reason === 'QMP_QUEUE_FULL');
    });
    assert.equal((await rig.client.getSandbox('one')).state, 'SANDBOX_STATE_RUNNING', 'the daemon answers');
    vm.qmp.resumeReading();
    const results = await settled;
    assert.ok(results.some(({ status }) => status === 'rejected'));
    for (const [index, { status }] of results.entries()) {
      if (status === 'fulfilled') continue;
      assertRefusal(await refusal(Promise.resolve(attaches[index])), { code: EXHAUSTED, reason: 'QMP_QUEUE_FULL' });
    }
    for (const name of names) {
      const attached = await until(`${name} is attached`, () => rig.attach(name).catch(() => undefined));
      assert.equal(attached.state, 'VOLUME_STATE_ATTACHED');
    }
  });

  it('qmp_line_bytes_max: a longer line ends the connection, never the sandbox', async () => {
    await using bounded = await start({ qmp_line_bytes_max: 262_144 });
    const { rig, vm } = bounded;
    await rig.attach('a');
    const before = vm.qmp.connections;
    vm.qmp.sendRaw(`{"event": "${'x'.repeat(300_000)}"}\n`);
    await until('a new connection', () => (vm.qmp.connections > before ? true : undefined));
    const gone = await until('a detach', () => rig.detach('a').catch(() => undefined));
    assert.equal(gone.state, 'VOLUME_STATE_REMOVED');
  });

  it('exec_max: commands at once in one sandbox, not in another', async () => {
    await using bounded = await start({ exec_max: 2 });
    const { rig, vm } = bounded;
    const other = await rig.sandbox('two');
    await until('its agent is ready', async () => (await rig.client.getSandbox('two')).agentReady || undefined);
    let exited = false;
    for (const one of [vm, other]) {
      one.agent.answer = ({ execute }) =>
        execute === 'guest-exec' ? { pid: 7 } : { exited: exited || one === other, exitcode: 0 };
    }
    const within = [rig.client.exec('one', 'true'), rig.client.exec('one', 'true')];
    await until('both run', () =>
      vm.agent.seen.filter((name) => name === 'guest-exec').length === 2 ? true : undefined,
    );
    assertRefusal(await refusal(rig.client.exec('one', 'true')), { code: EXHAUSTED, reason: 'TOO_MANY_COMMANDS' });
    assert.equal((await rig.client.exec('two', 'true')).exitCode, 0);
    exited = true;
    for (const exec of within) assert.equal((await exec).exitCode, 0);
    assert.equal((await rig.client.exec('one', 'true')).exitCode, 0);
  });

  it('agent_queue_max: requests that wait for one agent', async () => {
    await using bounded = await start({ agent_queue_max: 2 });
    const { rig, vm } = bounded;
    const release = Promise.withResolvers<undefined>();
    vm.agent.answer = async ({ execute }) => {
      if (execute !== 'guest-exec') return { exited: true, exitcode: 0 };
      await release.promise;
      return { pid: 7 };
    };
    const within = [rig.client.exec('one', 'true')];
    await until('the first is asked', () => (vm.agent.seen.includes('guest-exec') ? true : undefined));
    const full = await until('the queue is full', async () => {
      const next = rig.client.exec('one', 'true');
      const seen = await Promise.race([
        next.then(
          () => undefined,
          (error: unknown) => decodeRefusal(error),
        ),
        // One that waits is not answered before a call that was made after it.
        rig.client.getSandbox('one').then(() => undefined),
      ]);
      if (seen === undefined) within.push(next);
      return seen;
    });
    assertRefusal(full, { code: EXHAUSTED, reason: 'AGENT_QUEUE_FULL' });
    release.resolve(undefined);
    for (const exec of within) assert.equal((await exec).exitCode, 0);
    assert.equal((await rig.client.exec('one', 'true')).exitCode, 0);
  });

  it('exec_output_bytes_max and agent_line_bytes_max: long outputs are cut and said to be, longer lines refused', async () => {
    await using bounded = await start({ exec_output_bytes_max: 4096, agent_line_bytes_max: 65_536 });
    const { rig, vm } = bounded;
    let outputBytes = 10_000;
    vm.agent.answer = ({ execute }) => {
      if (execute === 'guest-exec') return { pid: 7 };
      return { exited: true, exitcode: 0, 'out-data': Buffer.alloc(outputBytes, 'x').toString('base64') };
    };
    const cut = await rig.client.exec('one', 'true');
    assert.deepEqual([cut.standardOutput.length, cut.truncated], [4096, true]);
    outputBytes = 100_000;
    assertRefusal(await refusal(rig.client.exec('one', 'true')), {
      code: EXHAUSTED,
      reason: 'GUEST_AGENT_REPLY_TOO_LARGE',
    });
    outputBytes = 10;
    const next = await until('the agent works again', () => rig.client.exec('one', 'true').catch(() => undefined));
    assert.deepEqual([next.standardOutput.length, next.truncated], [10, false]);
  });
});

describe('watchers', { timeout: 120_000 }, () => {
  it('watchers_max: one too many is refused, the others go on, and a place that is left is free', async () => {
    await using bounded = await start({ watchers_max: 2 });
    const { rig } = bounded;
    const streams = [await watch(rig.client), await watch(rig.client)];
    const seen: number[][] = streams.map(() => []);
    streams.forEach((stream, index) => {
      stream.on('error', () => undefined);
      stream.on('data', (event: Event__Output) => seen[index]?.push(event.sequence));
    });
    const error = await refusal(watch(rig.client));
    assert.equal(error.code, EXHAUSTED);
    assert.equal(error.metadata['max'], '2');
    await rig.attach('a');
    await until('both watchers saw it', () => (seen.every((list) => list.length === 2) ? true : undefined));
    streams[0]?.cancel();
    const late = await until('a free place', () => watch(rig.client).catch(() => undefined));
    late.on('error', () => undefined);
    late.cancel();
    streams[1]?.cancel();
  });

  it('watcher_queue_max: a watcher that does not read loses its stream, and it alone; it can go on where it was', async () => {
    await using bounded = await start({ watcher_queue_max: 8 });
    const { rig } = bounded;
    const spec = { rawFile: { path: await longPath(rig) } };
    const attach = (): Promise<unknown> => rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
    await attach();
    // A connection of its own: what does not read must not hold up what does.
    using slow = new ApiClient(rig.daemon.socket);
    const stalled = slow.volumes.watch({ sandboxId: 'one' });
    // Until it is asked for its first message, grpc-js takes in whatever comes; from then on it stops when asked to.
    const [snapshot] = (await once(stalled, 'data')) as [VolumeEvent__Output];
    stalled.pause();
    const quick = await watch(rig.client);
    quick.on('error', () => undefined);
    const numbers: number[] = [];
    quick.on('data', (event: Event__Output) => numbers.push(event.sequence));

    await rig.detach('a');
    for (let cycle = 0; cycle < STALLED_CYCLES; cycle += 1) {
      await attach();
      await rig.detach('a');
    }
    const count = 2 + 4 * STALLED_CYCLES;
    const last = await until('the quick watcher has all', () =>
      numbers.length === count ? numbers.at(-1) : undefined,
    );
    assert.deepEqual(numbers, range((snapshot.event?.sequence ?? 0) + 1, count));

    const read: number[] = [];
    stalled.on('data', ({ event }: VolumeEvent__Output) => read.push(event?.sequence ?? 0));
    stalled.resume();
    const [problem] = (await once(stalled, 'error')) as unknown[];
    const { code, reason } = decodeRefusal(problem);
    assert.deepEqual({ code, reason }, { code: EXHAUSTED, reason: 'WATCHER_TOO_SLOW' });
    assert.ok(read.length > 0 && read.length < count, `${read.length} of ${count} events came`);
    // More than the queue holds: what is retained does not count as lagging behind.
    const again = await watch(slow, read.at(-1) ?? 0);
    again.on('error', () => undefined);
    const rest: number[] = [];
    again.on('data', (event: Event__Output) => rest.push(event.sequence));
    await until('the rest', () => (rest.at(-1) === last ? true : undefined));
    assert.deepEqual([...read, ...rest], numbers, 'nothing is missing, nothing came twice, all is in order');
    again.cancel();
    quick.cancel();
  });

  it('events_retained: what is too old to be told is refused, and the answer says what is there', async () => {
    await using bounded = await start({ events_retained: 8 });
    const { rig } = bounded;
    const live = await watch(rig.client);
    live.on('error', () => undefined);
    let removed = 0;
    live.on('data', ({ type }: Event__Output) => (removed += type === 'volume.removed' ? 1 : 0));
    for (let cycle = 0; cycle < 5; cycle += 1) {
      await rig.attach('a');
      await rig.detach('a');
    }
    // An answer may come before its event is on disk, and so before it is told: what is retained still moves on.
    await until('the last event', () => (removed === 5 ? true : undefined));
    live.cancel();
    const [refused] = (await once(rig.client.events.watch({ afterSequence: 1 }), 'error')) as unknown[];
    const error = decodeRefusal(refused);
    assertRefusal(error, { code: 'OUT_OF_RANGE', reason: 'EVENTS_LOST' });
    const oldest = Number(error.metadata['oldest']);
    assert.equal(Number(error.metadata['newest']) - oldest, 7);
    const stream = await watch(rig.client, oldest - 1);
    stream.on('error', () => undefined);
    const numbers: number[] = [];
    stream.on('data', (event: Event__Output) => numbers.push(event.sequence));
    await until('eight events', () => (numbers.length === 8 ? true : undefined));
    assert.deepEqual(numbers, range(oldest, 8));
    stream.cancel();
  });
});

function range(first: number, length: number): number[] {
  return Array.from({ length }, (_, index) => first + index);
}

/** A source with a path of some 3 KB: each event of its volume is as large, so that a stream fills up soon. */
async function longPath(rig: FakeVmRig): Promise<string> {
  const parts = Array.from({ length: 12 }, (_, index) => String(index).padEnd(250, 'x'));
  await mkdir(join(rig.daemon.volumeDir, ...parts), { recursive: true });
  return await rig.daemon.rawFile(join(...parts, 'disk'), 65_536);
}
