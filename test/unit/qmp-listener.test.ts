import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger, silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { FakeQmp } from '../support/fake-qmp.ts';

async function pair(log = silentLogger()): Promise<AsyncDisposable & { fake: FakeQmp; qmp: QmpClient }> {
  await using stack = new AsyncDisposableStack();
  const fake = stack.use(await FakeQmp.listen());
  const qmp = stack.use(await QmpClient.connect({ path: fake.path, log }));
  const owned = stack.move();
  return { fake, qmp, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Returns when the client has read everything that the fake has sent so far. */
async function settled(qmp: QmpClient): Promise<void> {
  await qmp.run('query-version');
}

describe('qmp listeners', () => {
  it('an event that comes before the reply is there when the call returns', async () => {
    await using it = await pair();
    it.fake.on('device_del', (_args, { server }) => {
      server.emit('DEVICE_DELETED', { device: 'v1', path: '/machine/peripheral/v1' });
      return {};
    });
    const order: string[] = [];
    using gone = it.qmp.listen('DEVICE_DELETED', () => order.push('event') > 0);
    await it.qmp.run('device_del', { id: 'v1' });
    order.push('reply');
    assert.deepEqual(order, ['event', 'reply']);
    it.fake.drop();
    await it.qmp.closed;
    assert.equal((await gone.next()).data.device, 'v1');
  });

  it('the predicate takes ours from the two events of one removal', async () => {
    await using it = await pair();
    using gone = it.qmp.listen('DEVICE_DELETED', (event) => event.data.device === 'v1');
    it.fake.emit('DEVICE_DELETED', { path: '/machine/peripheral/v1/virtio-backend' });
    it.fake.emit('DEVICE_DELETED', { device: 'v1', path: '/machine/peripheral/v1' });
    const event = await gone.next();
    assert.equal(event.event, 'DEVICE_DELETED');
    assert.deepEqual(event.data, { device: 'v1', path: '/machine/peripheral/v1' });
    assert.ok(Math.abs(event.timestampMs - Date.now()) < 3_600_000);
    await assert.rejects(gone.next({ timeoutMs: 10 }), { reason: 'QMP_EVENT_TIMEOUT', code: 'DEADLINE_EXCEEDED' });
  });

  it('an event that comes twice is seen twice', async () => {
    await using it = await pair();
    using stops = it.qmp.listen('STOP');
    it.fake.emit('STOP', {});
    it.fake.emit('STOP', {});
    await stops.next();
    await stops.next();
  });

  it('unknown events are ignored and noted, whatever their name', async () => {
    const noted: unknown[] = [];
    const write = (line: string): void => {
      const { msg, event } = JSON.parse(line) as Record<string, unknown>;
      if (msg === 'unknown qmp event ignored') noted.push(event);
    };
    await using it = await pair(createLogger('debug', { write }));
    using all = it.qmp.listen(['STOP', 'RESUME']);
    const names = ['NO_SUCH_EVENT', 'constructor', '__proto__'];
    for (const name of names) it.fake.emit(name, { x: 1 });
    it.fake.emit('RESUME', {});
    assert.equal((await all.next()).event, 'RESUME');
    assert.equal(it.qmp.state, 'ready');
    assert.deepEqual(noted, names);
  });

  it('listeners are independent: one wait never eats the event of another', async () => {
    await using it = await pair();
    using one = it.qmp.listen('STOP');
    using two = it.qmp.listen(['STOP', 'RESUME']);
    it.fake.emit('STOP', {});
    await one.next();
    it.fake.emit('RESUME', {});
    assert.equal((await two.next()).event, 'STOP');
    assert.equal((await two.next()).event, 'RESUME');
  });

  it('a wait that timed out or was aborted consumes nothing', async () => {
    await using it = await pair();
    using stops = it.qmp.listen('STOP');
    await assert.rejects(stops.next({ timeoutMs: 5 }), { reason: 'QMP_EVENT_TIMEOUT' });
    const abort = new AbortController();
    const aborted = assert.rejects(stops.next({ signal: abort.signal }), { message: 'enough' });
    abort.abort(new Error('enough'));
    it.fake.emit('STOP', {});
    await aborted;
    await settled(it.qmp);
    await stops.next({ timeoutMs: 1000 });
  });

  it('a wait that is aborted while an event is dispatched leaves that event to the next wait', async () => {
    await using it = await pair();
    const abort = new AbortController();
    const trip = (): boolean => {
      abort.abort(new Error('enough'));
      return true;
    };
    using first = it.qmp.listen('STOP', trip);
    using second = it.qmp.listen('STOP');
    const wait = assert.rejects(second.next({ signal: abort.signal }), { message: 'enough' });
    it.fake.emit('STOP', {});
    await first.next();
    await wait;
    await second.next({ timeoutMs: 1000 });
  });

  it('an overflow fails the listener after what it had kept, and no other listener', async () => {
    await using it = await pair();
    using small = it.qmp.listen('STOP', undefined, { queueMax: 2 });
    using other = it.qmp.listen('STOP');
    for (let i = 0; i < 3; i += 1) it.fake.emit('STOP', {});
    await settled(it.qmp);
    await small.next();
    await small.next();
    const overflow = { code: 'RESOURCE_EXHAUSTED', reason: 'QMP_EVENTS_OVERFLOW' };
    await assert.rejects(small.next(), overflow);
    it.fake.emit('STOP', {});
    await settled(it.qmp);
    await assert.rejects(small.next(), overflow);
    for (let i = 0; i < 4; i += 1) await other.next();
    assert.equal(it.qmp.state, 'ready');
  });

  it('a predicate that throws ends its own listener only', async () => {
    await using it = await pair();
    using bad = it.qmp.listen('STOP', () => {
      throw new Error('bug');
    });
    using good = it.qmp.listen('STOP');
    it.fake.emit('STOP', {});
    await good.next();
    await assert.rejects(bad.next(), { code: 'INTERNAL', reason: 'QMP_PREDICATE' });
    assert.equal(it.qmp.state, 'ready');
  });

  it('dispose ends a wait under way and the iteration', async () => {
    await using it = await pair();
    const listener = it.qmp.listen('STOP');
    const wait = assert.rejects(listener.next(), { code: 'CANCELLED', reason: 'QMP_LISTENER_CLOSED' });
    listener[Symbol.dispose]();
    await wait;
    const iterated = it.qmp.listen('STOP');
    let seen = 0;
    it.fake.emit('STOP', {});
    it.fake.emit('STOP', {});
    for await (const event of iterated) {
      assert.equal(event.event, 'STOP');
      seen += 1;
      if (seen === 2) iterated[Symbol.dispose]();
    }
    assert.equal(seen, 2);
  });

  it('leaving an iteration disposes the listener; a lost connection ends it with an error', async () => {
    await using it = await pair();
    const left = it.qmp.listen('STOP');
    it.fake.emit('STOP', {});
    for await (const event of left) {
      assert.equal(event.event, 'STOP');
      break;
    }
    await assert.rejects(left.next(), { reason: 'QMP_LISTENER_CLOSED' });
    const broken = it.qmp.listen('STOP');
    it.fake.drop();
    await assert.rejects(broken[Symbol.asyncIterator]().next(), { reason: 'QMP_LOST' });
  });

  it('there is a bound on open listeners', async () => {
    await using it = await pair();
    using stack = new DisposableStack();
    for (let i = 0; i < 4096; i += 1) stack.use(it.qmp.listen('STOP'));
    assert.throws(() => it.qmp.listen('STOP'), { code: 'RESOURCE_EXHAUSTED', reason: 'QMP_LISTENERS_FULL' });
    stack.dispose();
    it.qmp.listen('STOP')[Symbol.dispose]();
  });
});
