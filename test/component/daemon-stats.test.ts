import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { GetStatsResponse__Output } from '../../src/grpc/generated/qshim/v1/GetStatsResponse.ts';
import type { VolumeStats__Output } from '../../src/grpc/generated/qshim/v1/VolumeStats.ts';
import type { WatchStatsRequest } from '../../src/grpc/generated/qshim/v1/WatchStatsRequest.ts';
import { LATENCY_BOUNDARIES_NS } from '../../src/volume/stats/counters.ts';
import { refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { NO_REPLY } from '../support/fake-qmp.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** The real daemon and what QEMU counts: when it is asked, how often, and what is told of what could not be seen. */

const PATH = '/machine/peripheral/vol-1-a/virtio-backend';

function asked(vm: FakeVm, name: string): number {
  return vm.qmp.received.filter((command) => command.name === name).length;
}

function only(answer: GetStatsResponse__Output): VolumeStats__Output {
  assert.equal(answer.volumes.length, 1);
  const [volume] = answer.volumes;
  assert.ok(volume !== undefined);
  return volume;
}

/** Messages of Stats.Watch, as they come. */
async function* watched(rig: FakeVmRig, request: WatchStatsRequest): AsyncGenerator<GetStatsResponse__Output> {
  const stream = rig.client.stats.watch(request);
  try {
    for await (const message of stream as AsyncIterable<GetStatsResponse__Output>) yield message;
  } finally {
    stream.cancel();
  }
}

describe('looks at counters', { timeout: 120_000 }, () => {
  it('without a period: when somebody asks, and once for all that ask meanwhile', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    assert.equal(asked(vm, 'query-blockstats'), 0, 'nobody has asked');
    const held = vm.hold('query-blockstats');
    const first = rig.client.getStats({ sandboxId: 'one', fresh: true });
    await held.came;
    const more = Array.from({ length: 20 }, () => rig.client.getStats({ sandboxId: 'one', fresh: true }));
    // The calls have come when another call of the same connection, sent after them, is answered.
    await rig.volume('a');
    held.release();
    const answers = await Promise.all([first, ...more]);
    assert.equal(asked(vm, 'query-blockstats'), 2, 'one for the first, one for all that came after');
    for (const answer of answers) assert.equal(only(answer).read?.operations, 1);
    const last = only(await rig.client.getStats({ sandboxId: 'one' }));
    assert.equal(asked(vm, 'query-blockstats'), 2, 'what was seen is told');
    assert.deepEqual(last.lookedAt, answers.at(-1)?.volumes[0]?.lookedAt);
  });

  it('a volume that was not looked at yet is looked at for whoever asks', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    assert.deepEqual(await rig.client.getStats({ sandboxId: 'one', fresh: true }), { volumes: [], notLookedAt: [] });
    assert.equal(asked(vm, 'query-blockstats'), 0, 'there is nothing to look at');
    await rig.attach('a');
    await rig.attach('b');
    const { volumes } = await rig.client.getStats({});
    assert.deepEqual(
      volumes.map(({ volumeId, generation, state }) => [volumeId, generation, state]),
      [
        ['a', 1, 'VOLUME_STATE_ATTACHED'],
        ['b', 2, 'VOLUME_STATE_ATTACHED'],
      ],
    );
    assert.equal(asked(vm, 'query-blockstats'), 1, 'for both volumes');
  });

  it('each period, by itself, and the storage is asked once for a volume', async () => {
    await using rig = await FakeVmRig.start({ stats_period_ms: 250 });
    const vm = await rig.sandbox();
    await rig.attach('a');
    await until('four looks', () => asked(vm, 'query-blockstats') >= 4);
    assert.equal(asked(vm, 'query-block'), 1);
    const plain = only(await rig.client.getStats({ sandboxId: 'one', volumeId: 'a' }));
    assert.ok(plain.detailsLookedAt !== null && plain.lookedAt !== null);
    assert.ok(plain.detailsLookedAt.seconds * 1e9 + plain.detailsLookedAt.nanos < nanosOf(plain.lookedAt));
    assert.ok((plain.derived?.intervalMs ?? 0) > 0, 'from the look before');
    await rig.client.getStats({ sandboxId: 'one', fresh: true });
    assert.equal(asked(vm, 'query-block'), 2, 'and when somebody asks for it');
  });

  it('a QEMU that answers nothing is asked once', async () => {
    await using rig = await FakeVmRig.start({ stats_period_ms: 250, qmp_heartbeat_ms: 250, qmp_reply_timeout_ms: 500 });
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.qmp.on('query-blockstats', () => NO_REPLY);
    await until('a look waits', () => asked(vm, 'query-blockstats') >= 1);
    const before = asked(vm, 'query-blockstats');
    const beats = asked(vm, 'query-status');
    await until('periods go by', () => asked(vm, 'query-status') >= beats + 6);
    assert.ok(asked(vm, 'query-blockstats') <= before + 1);
    const seen = await refusal(rig.client.getStats({ sandboxId: 'one', fresh: true }));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'QMP_REPLY_TIMEOUT']);
  });

  it('the connection is lost: an error for the one that was named, and told of one among all', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const before = only(await rig.client.getStats({ sandboxId: 'one', fresh: true }));
    const usual = vm.qmp.handlerOf('query-blockstats');
    vm.qmp.on('query-blockstats', () => {
      vm.qmp.drop();
      return NO_REPLY;
    });
    const seen = await refusal(rig.client.getStats({ sandboxId: 'one', fresh: true }));
    assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'QMP_LOST']);
    const all = await rig.client.getStats({ fresh: true });
    assert.deepEqual(
      all.notLookedAt.map(({ sandboxId, reason }) => [sandboxId, reason]),
      [['one', 'QMP_LOST']],
    );
    assert.deepEqual(only(all).lookedAt, before.lookedAt, 'with what was seen before, and when');
    vm.qmp.on('query-blockstats', usual);
    const after = only(await rig.client.getStats({ sandboxId: 'one', fresh: true }));
    assert.notDeepEqual(after.lookedAt, before.lookedAt);
  });

  it('a volume that leaves while QEMU answers is not told of any more', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    await rig.attach('b');
    const usual = vm.qmp.handlerOf('query-blockstats');
    const answered = Promise.withResolvers<() => void>();
    vm.qmp.on('query-blockstats', (args, context) => {
      vm.qmp.on('query-blockstats', usual);
      const both = usual(args, context);
      answered.resolve(() => context.reply(both));
      return NO_REPLY;
    });
    const look = rig.client.getStats({ sandboxId: 'one', fresh: true });
    const reply = await answered.promise;
    await rig.detach('b');
    reply();
    assert.equal(only(await look).volumeId, 'a');
    const gone = only(await rig.client.getStats({ sandboxId: 'one', volumeId: 'b' }));
    assert.deepEqual([gone.state, gone.lookedAt, gone.read], ['VOLUME_STATE_REMOVED', null, null]);
  });
});

describe('what is told', { timeout: 120_000 }, () => {
  it('what QEMU does not show is missing, and not 0', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox();
    await rig.attach('a');
    const seen = only(await rig.client.getStats({ sandboxId: 'one', volumeId: 'a', fresh: true }));
    assert.equal('idleNs' in seen, false);
    assert.deepEqual([seen.throttle, seen.read?.latency, seen.derived], [null, null, null]);
    assert.equal(seen.flush !== null && 'bytes' in seen.flush, false);
    assert.deepEqual([seen.read?.bytes, seen.writtenTo, seen.ioStatus], [4096, 0, 'ok']);
  });

  it('what cannot be is refused', async () => {
    await using rig = await FakeVmRig.start();
    await rig.sandbox();
    await rig.attach('a');
    const reasonOf = async (request: object): Promise<string> => (await refusal(rig.client.getStats(request))).reason;
    assert.equal(await reasonOf({ sandboxId: 'two' }), 'SANDBOX_NOT_FOUND');
    assert.equal(await reasonOf({ sandboxId: 'one', volumeId: 'b' }), 'VOLUME_NOT_FOUND');
    assert.equal(await reasonOf({ volumeId: 'a' }), 'INVALID_FIELD');
    for (const periodMs of [0, 249]) {
      const refused = await refusal(watched(rig, { sandboxId: 'one', periodMs }).next());
      assert.equal(refused.code, 'INVALID_ARGUMENT', `a period of ${periodMs} ms`);
    }
  });

  it('a watcher hears of each of its looks, with what went on since the one before', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const stream = watched(rig, { sandboxId: 'one', periodMs: 250 });
    const first = (await stream.next()).value as GetStatsResponse__Output;
    assert.deepEqual([only(first).read?.operations, only(first).derived], [1, null]);
    vm.model.driverLive('vol-1-a'); // Which reads once more.
    const next = await until('the look that has seen it', async () => {
      const message = only((await stream.next()).value as GetStatsResponse__Output);
      return message.derived?.read?.operationsPerSecond === 0 ? undefined : message;
    });
    const { intervalMs = 0, read } = next.derived ?? {};
    assert.ok(Math.abs((read?.operationsPerSecond ?? 0) * (intervalMs / 1000) - 1) < 1e-6, 'one, by the interval');
    assert.equal(read?.bytesPerSecond, (read?.operationsPerSecond ?? 0) * 4096);
    await stream.return(undefined);
  });
});

describe('latency histograms', { timeout: 120_000 }, () => {
  const set = (vm: FakeVm): unknown[] =>
    vm.qmp.received.filter(({ name }) => name === 'block-latency-histogram-set').map(({ arguments: args }) => args);

  it('are set once, after the attach, and anew by no daemon: that would lose the counts', async () => {
    await using rig = await FakeVmRig.start({ stats_histograms: 'on' });
    const vm = await rig.sandbox();
    await rig.attach('a');
    await until('they are set', () => set(vm).length === 1);
    assert.deepEqual(set(vm), [{ id: PATH, boundaries: LATENCY_BOUNDARIES_NS }]);
    const told = only(await rig.client.getStats({ sandboxId: 'one', fresh: true }));
    assert.deepEqual(told.read?.latency?.boundariesNs, LATENCY_BOUNDARIES_NS);
    assert.equal(told.read.latency.counts.length, LATENCY_BOUNDARIES_NS.length + 1);
    await rig.restart('SIGKILL');
    await until('the next daemon has looked', async () => {
      const { volumes } = await rig.client.getStats({ sandboxId: 'one', fresh: true });
      return volumes[0]?.read?.latency?.boundariesNs.length === LATENCY_BOUNDARIES_NS.length;
    });
    assert.equal(set(vm).length, 1);
  });

  it('an adopted volume that has none gets them', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    await rig.client.getStats({ sandboxId: 'one', fresh: true });
    assert.deepEqual(set(vm), [], 'this daemon is not to');
    Object.assign(rig.settings, { stats_histograms: 'on' });
    await rig.restart('SIGKILL');
    await until('they are set', () => set(vm).length === 1);
  });
});

function nanosOf({ seconds, nanos }: { readonly seconds: number; readonly nanos: number }): number {
  return seconds * 1e9 + nanos;
}
