import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as oneTurn } from 'node:timers/promises';
import { Deadline } from '../../src/base/deadline.ts';
import { ShimError } from '../../src/base/errors.ts';
import { DriverWatch, type WatchedVm } from '../../src/volume/driver-wait.ts';
import { QmpError } from '../../src/qmp/errors.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { until } from '../support/until.ts';

const ANNOUNCED = Promise.resolve('/dev/vdz');
const LIVE = ['VIRTIO_CONFIG_S_DRIVER_OK: ready'];
const FAILED = ['VIRTIO_CONFIG_S_FAILED: gave up'];
type Answer = readonly string[] | Error;

interface FakeWatched {
  readonly vm: WatchedVm;
  readonly gone: AbortController;
  /** The devices whose virtio status was asked for. */
  readonly looks: string[];
  /** What QEMU lists besides: the devices that are there, with the number of their reads. */
  readonly reads: Map<string, number>;
}

/** A VM whose devices answer with the virtio status that `statuses` holds for them. */
function vmWith(statuses: Map<string, Answer>, seen: Partial<WatchedVm> = {}): FakeWatched {
  const gone = new AbortController();
  const looks: string[] = [];
  const reads = new Map<string, number>();
  const run = (command: string, args: { readonly path: string }): Promise<unknown> => {
    if (command === 'qom-list') return Promise.resolve([...reads.keys()].map((name) => ({ name })));
    if (command === 'query-blockstats') {
      const stats = [...reads].map(([device, count]) => ({
        qdev: `/machine/peripheral/${device}/virtio-backend`,
        stats: { rd_operations: count },
      }));
      return Promise.resolve(stats);
    }
    const device = args.path.split('/')[3] ?? '';
    looks.push(device);
    const answer = statuses.get(device) ?? [];
    if (answer instanceof Error) return Promise.reject(answer);
    const transports = ['VIRTIO_RING_F_EVENT_IDX: yes'];
    return Promise.resolve({ status: { statuses: answer }, 'guest-features': { transports } });
  };
  // Of a connection, only `run` is used.
  const client = { run } as unknown as Awaited<ReturnType<WatchedVm['link']['ready']>>;
  const link = { ready: () => Promise.resolve(client) };
  const vm = { id: 'vm', link, gone: gone.signal, virtioStatus: true, agentReady: true, ...seen };
  return { vm, gone, looks, reads };
}

const volume = (id: string) => ({ id, names: { device: id } });
const soon = (): Deadline => Deadline.after(5000);

describe('waiting for drivers', () => {
  it('each volume is told of its own driver', async () => {
    const statuses = new Map<string, Answer>([['b', LIVE]]);
    const { vm } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const first = watch.untilLive(volume('a'), soon());
    assert.equal(await watch.untilLive(volume('b'), soon()), 'virtio-status');
    statuses.set('a', LIVE);
    assert.equal(await first, 'virtio-status');
  });

  it('a driver that gives up ends its own wait only', async () => {
    const statuses = new Map<string, Answer>([['a', FAILED]]);
    const { vm } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const other = watch.untilLive(volume('b'), soon());
    await assert.rejects(
      watch.untilLive(volume('a'), soon()),
      shimFailure('FAILED_PRECONDITION', 'GUEST_DRIVER_FAILED'),
    );
    statuses.set('b', LIVE);
    assert.equal(await other, 'virtio-status');
  });

  it('a device that vanishes ends its own wait only', async () => {
    const statuses = new Map<string, Answer>([['a', new QmpError('x-query-virtio-status', 'GenericError', 'no such')]]);
    const { vm } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const other = watch.untilLive(volume('b'), soon());
    await assert.rejects(watch.untilLive(volume('a'), soon()), shimFailure('FAILED_PRECONDITION', 'DEVICE_VANISHED'));
    statuses.set('b', LIVE);
    assert.equal(await other, 'virtio-status');
  });

  it('the deadline of one is not that of another', async () => {
    const statuses = new Map<string, Answer>();
    const { vm, looks } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const other = watch.untilLive(volume('b'), soon());
    await assert.rejects(
      watch.untilLive(volume('a'), Deadline.after(20)),
      shimFailure('DEADLINE_EXCEEDED', 'GUEST_DRIVER_TIMEOUT'),
    );
    statuses.set('b', LIVE);
    await other;
    const before = looks.length;
    assert.equal(await watch.untilLive(volume('b'), soon()), 'virtio-status');
    assert.deepEqual(looks.slice(before), ['b'], 'whoever has left is looked at no more');
  });

  it('the end of the VM ends all waits', async () => {
    const { vm, gone } = vmWith(new Map());
    const watch = new DriverWatch(vm);
    const waits = [watch.untilLive(volume('a'), soon()), watch.untilLive(volume('b'), soon())];
    const reason = new ShimError('UNAVAILABLE', 'the VM is gone', { reason: 'VM_GONE' });
    gone.abort(reason);
    for (const wait of waits) await assert.rejects(wait, reason);
  });

  it('all are looked at, in whatever order they come up', async () => {
    const statuses = new Map<string, Answer>();
    const { vm, looks } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const ids = ['a', 'b', 'c', 'd', 'e'];
    const waits = ids.map((id) => watch.untilLive(volume(id), soon()));
    // Those behind the first as well, although it is never live.
    await until('each is looked at', () => new Set(looks).size >= ids.length);
    for (const id of ids.toReversed()) statuses.set(id, LIVE);
    assert.deepEqual(
      await Promise.all(waits),
      ids.map(() => 'virtio-status'),
    );
  });

  it('calm: when nobody waits, and when the last one that came is up', async () => {
    const statuses = new Map<string, Answer>();
    const { vm } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    await watch.untilCalm();
    const waits = ['a', 'b'].map((id) => watch.untilLive(volume(id), soon()));
    statuses.set('a', LIVE);
    await waits[0];
    let calm = false;
    const waited = watch.untilCalm().then(() => (calm = true));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(calm, false, 'the other is about to come up');
    statuses.set('b', LIVE);
    await Promise.all([waited, waits[1]]);
  });

  it('calm: a driver that does not come up holds nobody up', async () => {
    const statuses = new Map<string, Answer>([['a', LIVE]]);
    const { vm, gone } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const stuck = watch.untilLive(volume('b'), Deadline.after(600_000));
    await watch.untilLive(volume('a'), soon());
    await watch.untilCalm();
    gone.abort(new ShimError('UNAVAILABLE', 'the VM is gone', { reason: 'VM_GONE' }));
    await assert.rejects(stuck, shimFailure('UNAVAILABLE', 'VM_GONE'));
  });

  it('what the guest announces is a reason to look, and no proof', async () => {
    const statuses = new Map<string, Answer>();
    const { vm, looks } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    let live = false;
    const wait = watch.untilLive(volume('a'), soon(), ANNOUNCED).then((evidence) => {
      live = true;
      return evidence;
    });
    await until('it was looked at', () => Promise.resolve(looks.length >= 3));
    assert.equal(live, false, 'its driver has not been seen');
    statuses.set('a', LIVE);
    assert.equal(await wait, 'virtio-status');
  });

  it('with news to come it is hardly looked at before; then at once', async () => {
    const statuses = new Map<string, Answer>([['a', LIVE]]);
    const { vm, looks } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const news = Promise.withResolvers<undefined>();
    const wait = watch.untilLive(volume('a'), soon(), news.promise);
    await oneTurn();
    assert.deepEqual(looks, []);
    news.resolve(undefined);
    assert.equal(await wait, 'virtio-status');
    assert.deepEqual(looks, ['a']);
  });

  it('news that is lost, and a driver that fails without any, are noticed all the same', async () => {
    const statuses = new Map<string, Answer>([
      ['a', LIVE],
      ['b', FAILED],
    ]);
    const { vm } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const never = new Promise<undefined>(() => undefined);
    const failed = assert.rejects(
      watch.untilLive(volume('b'), soon(), never),
      shimFailure('FAILED_PRECONDITION', 'GUEST_DRIVER_FAILED'),
    );
    assert.equal(await watch.untilLive(volume('a'), soon(), never), 'virtio-status');
    await failed;
  });

  it('one that is never up keeps nobody who waits for news from being looked at now and then', async () => {
    const statuses = new Map<string, Answer>([['b', LIVE]]);
    const { vm } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const stuck = watch.untilLive(volume('a'), soon());
    const never = new Promise<undefined>(() => undefined);
    assert.equal(await watch.untilLive(volume('b'), soon(), never), 'virtio-status');
    statuses.set('a', LIVE);
    await stuck;
  });

  it('while others are announced, those who wait for their news are left alone', async (context) => {
    // The watch's clock is the test's: how busy the machine is does not matter.
    let nowMs = 1000;
    context.mock.method(performance, 'now', () => nowMs);
    const ids = Array.from({ length: 9 }, (_, index) => `d${index}`);
    const { vm, looks, gone } = vmWith(new Map<string, Answer>(ids.map((id) => [id, LIVE])));
    const watch = new DriverWatch(vm);
    const never = new Promise<undefined>(() => undefined);
    const ended = assert.rejects(watch.untilLive(volume('last'), soon(), never), shimFailure('UNAVAILABLE', 'VM_GONE'));
    for (const id of ids) {
      nowMs += 40;
      await watch.untilLive(volume(id), soon(), ANNOUNCED);
    }
    assert.deepEqual(looks, ids, 'after 360 ms it was not looked at once');
    nowMs += 100;
    await until('it is looked at when it has become quiet', () => Promise.resolve(looks.includes('last')));
    gone.abort(new ShimError('UNAVAILABLE', 'the VM is gone', { reason: 'VM_GONE' }));
    await ended;
  });

  it('news that will not come is no sign that others are being announced', async (context) => {
    let nowMs = 1000;
    context.mock.method(performance, 'now', () => nowMs);
    const { vm } = vmWith(new Map<string, Answer>(['a', 'b'].map((id) => [id, LIVE])));
    const watch = new DriverWatch(vm);
    const unheard = watch.untilLive(volume('b'), soon(), new Promise<undefined>(() => undefined));
    for (let step = 0; step < 2; step += 1) {
      nowMs += 60;
      await watch.untilLive(volume('a'), soon(), Promise.resolve(undefined));
    }
    assert.equal(await unheard, 'virtio-status');
  });

  it('however busy it is, whose time is nearly up is not left alone', async (context) => {
    let nowMs = 1000;
    context.mock.method(performance, 'now', () => nowMs);
    const { vm } = vmWith(new Map<string, Answer>(['a', 'b'].map((id) => [id, LIVE])));
    const watch = new DriverWatch(vm);
    // By the test's clock it has 900 ms; by the machine's, minutes.
    const deadline = Deadline.after(600_000);
    nowMs += 599_100;
    const unheard = watch.untilLive(volume('b'), deadline, new Promise<undefined>(() => undefined));
    for (let step = 0; step < 3; step += 1) {
      nowMs += 50;
      await watch.untilLive(volume('a'), soon(), ANNOUNCED);
    }
    assert.equal(await unheard, 'virtio-status');
  });

  it('one that is announced is looked at before those that are only due', async (context) => {
    let nowMs = 1000;
    context.mock.method(performance, 'now', () => nowMs);
    const { vm, looks, gone } = vmWith(new Map<string, Answer>([['announced', LIVE]]));
    const watch = new DriverWatch(vm);
    const never = new Promise<undefined>(() => undefined);
    const waits = Array.from({ length: 9 }, (_, index) => watch.untilLive(volume(`due${index}`), soon(), never));
    const news = Promise.withResolvers<string>();
    const announced = watch.untilLive(volume('announced'), soon(), news.promise);
    await oneTurn();
    nowMs += 1500;
    news.resolve('/dev/vda');
    await announced;
    assert.equal(looks[0], 'announced');
    gone.abort(new ShimError('UNAVAILABLE', 'the VM is gone', { reason: 'VM_GONE' }));
    await Promise.allSettled(waits);
  });

  it('however busy it is, each is looked at each is looked at once a second', async (context) => {
    let nowMs = 1000;
    context.mock.method(performance, 'now', () => nowMs);
    const { vm } = vmWith(new Map<string, Answer>(['a', 'b'].map((id) => [id, LIVE])));
    const watch = new DriverWatch(vm);
    const never = new Promise<undefined>(() => undefined);
    const unheard = watch.untilLive(volume('b'), Deadline.after(600_000), never);
    for (let step = 0; step < 11; step += 1) {
      nowMs += 99;
      await watch.untilLive(volume('a'), soon(), ANNOUNCED);
    }
    assert.equal(await unheard, 'virtio-status');
  });

  it('those without news are looked at while others wait for theirs', async () => {
    const statuses = new Map<string, Answer>([['b', LIVE]]);
    const { vm, looks } = vmWith(statuses);
    const watch = new DriverWatch(vm);
    const news = Promise.withResolvers<undefined>();
    const quiet = watch.untilLive(volume('a'), soon(), news.promise);
    assert.equal(await watch.untilLive(volume('b'), soon()), 'virtio-status');
    assert.deepEqual(looks, ['b']);
    statuses.set('a', LIVE);
    news.resolve(undefined);
    assert.equal(await quiet, 'virtio-status');
  });
});

describe('where the virtio status cannot be had', () => {
  const refused = new Map<string, Answer>([['a', new QmpError('x-query-virtio-status', 'GenericError', 'not now')]]);

  it('a QEMU that does not survive the question is not asked; the reads of the guest tell', async () => {
    const { vm, looks, reads } = vmWith(new Map([['a', LIVE]]), { virtioStatus: false });
    reads.set('a', 0);
    const watch = new DriverWatch(vm);
    const wait = watch.untilLive(volume('a'), soon());
    await oneTurn();
    reads.set('a', 1);
    assert.equal(await wait, 'block-reads');
    assert.deepEqual(looks, []);
  });

  it("reads before the agent has answered may be the firmware's", async () => {
    const { vm, reads } = vmWith(new Map(), { virtioStatus: false, agentReady: false });
    reads.set('a', 1);
    const watch = new DriverWatch(vm);
    const wait = watch.untilLive(volume('a'), Deadline.after(30));
    await assert.rejects(wait, shimFailure('DEADLINE_EXCEEDED', 'GUEST_DRIVER_TIMEOUT'));
  });

  it('a question that fails says nothing of a device that QEMU lists', async () => {
    const { vm, looks, reads } = vmWith(refused);
    reads.set('a', 0);
    const watch = new DriverWatch(vm);
    const wait = watch.untilLive(volume('a'), soon());
    await until('it was asked more than once', () => Promise.resolve(looks.length > 1));
    reads.set('a', 1);
    assert.equal(await wait, 'block-reads');
  });

  it('a device that QEMU does not list has vanished, however one looks', async () => {
    const { vm } = vmWith(new Map(), { virtioStatus: false });
    const wait = new DriverWatch(vm).untilLive(volume('a'), soon());
    await assert.rejects(wait, shimFailure('FAILED_PRECONDITION', 'DEVICE_VANISHED'));
  });
});
