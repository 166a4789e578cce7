import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLogger, silentLogger, type Logger } from '../../src/base/log.ts';
import { QmpClient, type QmpConnectOptions } from '../../src/qmp/client.ts';
import { QmpError } from '../../src/qmp/errors.ts';
import { FakeQmp, NO_REPLY, QmpFailure, type HandlerContext } from '../support/fake-qmp.ts';

/** A fake and a client on it, both closed with the pair. */
async function pair(
  options: Partial<QmpConnectOptions> = {},
): Promise<AsyncDisposable & { fake: FakeQmp; qmp: QmpClient }> {
  await using stack = new AsyncDisposableStack();
  const fake = stack.use(await FakeQmp.listen());
  const qmp = stack.use(await QmpClient.connect({ path: fake.path, log: silentLogger(), ...options }));
  const owned = stack.move();
  return { fake, qmp, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** A logger whose lines can be read. */
function recordingLogger(): { log: Logger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line) as Record<string, unknown>);
  return { log: createLogger('trace', { write }), lines };
}

const lost = { code: 'UNAVAILABLE', reason: 'QMP_LOST' };

describe('qmp handshake', () => {
  it('greets, negotiates and answers', async () => {
    await using it = await pair();
    assert.equal(it.qmp.state, 'ready');
    assert.deepEqual(it.qmp.greeting, {
      version: { major: 7, minor: 2, micro: 22 },
      package: 'fake',
      capabilities: ['oob'],
    });
    assert.deepEqual(
      it.fake.received.map((command) => command.name),
      ['qmp_capabilities'],
    );
    it.fake.on('query-status', () => ({ status: 'running', running: true }));
    const status = await it.qmp.run('query-status');
    assert.equal(status.status, 'running');
  });

  it('a second client gets no greeting and says so; it is served once the first has gone', async () => {
    await using it = await pair();
    const options = { path: it.fake.path, log: silentLogger() };
    await assert.rejects(QmpClient.connect({ ...options, handshakeTimeoutMs: 50 }), {
      code: 'UNAVAILABLE',
      reason: 'QMP_NO_GREETING',
    });
    const patient = QmpClient.connect(options);
    await it.qmp[Symbol.asyncDispose]();
    await using second = await patient;
    assert.equal(second.state, 'ready');
  });

  it('a server that greets and then does not negotiate counts as not greeting', async () => {
    await using fake = await FakeQmp.listen();
    fake.on('qmp_capabilities', () => NO_REPLY);
    await assert.rejects(QmpClient.connect({ path: fake.path, log: silentLogger(), handshakeTimeoutMs: 50 }), {
      reason: 'QMP_NO_GREETING',
    });
  });

  it('refused negotiation, a wrong first line, and a malformed greeting are QMP_LOST', async () => {
    await using refusing = await FakeQmp.listen();
    refusing.on('qmp_capabilities', () => new QmpFailure('no'));
    await assert.rejects(QmpClient.connect({ path: refusing.path, log: silentLogger() }), lost);
    for (const greeting of [{ return: {}, id: 1 }, { QMP: { version: 'seven' } }, 'hello']) {
      await using fake = await FakeQmp.listen({ greeting });
      await assert.rejects(QmpClient.connect({ path: fake.path, log: silentLogger() }), lost);
    }
  });

  it('no socket: QMP_CONNECT_FAILED with the errno', async () => {
    await assert.rejects(QmpClient.connect({ path: '/nonexistent/qmp.sock', log: silentLogger() }), {
      code: 'UNAVAILABLE',
      reason: 'QMP_CONNECT_FAILED',
      metadata: { path: '/nonexistent/qmp.sock', errno: 'ENOENT' },
    });
  });

  it('the signal ends the connecting with its reason', async () => {
    await using fake = await FakeQmp.listen({ greeting: null });
    const abort = new AbortController();
    const connecting = QmpClient.connect({ path: fake.path, log: silentLogger(), signal: abort.signal });
    const reason = new Error('stopping');
    setImmediate(() => abort.abort(reason));
    await assert.rejects(connecting, reason);
  });
});

describe('qmp calls', () => {
  it('replies in any order reach their own calls', async () => {
    await using it = await pair();
    const contexts: HandlerContext[] = [];
    it.fake.on('qom-get', (_args, context) => {
      contexts.push(context);
      return NO_REPLY;
    });
    const calls = ['a', 'b', 'c'].map((property) => it.qmp.run('qom-get', { path: '/machine', property }));
    await it.fake.waitForCommand('qom-get', 3);
    const [a, b, c] = contexts;
    c?.reply('third');
    a?.reply('first');
    b?.reply('second');
    assert.deepEqual(await Promise.all(calls), ['first', 'second', 'third']);
  });

  it('an error of QEMU carries its class and the command', async () => {
    await using it = await pair();
    it.fake.on('device_del', () => new QmpFailure("Device 'x' not found", 'DeviceNotFound'));
    await assert.rejects(it.qmp.run('device_del', { id: 'x' }), (error: unknown) => {
      assert.ok(error instanceof QmpError);
      assert.equal(error.errorClass, 'DeviceNotFound');
      assert.equal(error.command, 'device_del');
      return true;
    });
    assert.equal(it.qmp.state, 'ready');
  });

  it('a lost reply ends in QMP_REPLY_TIMEOUT; when it comes late it is counted and goes to nobody else', async () => {
    const { log, lines } = recordingLogger();
    await using it = await pair({ log });
    const contexts: HandlerContext[] = [];
    it.fake.on('qom-get', (_args, context) => {
      contexts.push(context);
      return NO_REPLY;
    });
    const args = { path: '/machine', property: 'x' };
    await assert.rejects(it.qmp.run('qom-get', args, { timeoutMs: 20 }), {
      code: 'DEADLINE_EXCEEDED',
      reason: 'QMP_REPLY_TIMEOUT',
      message: /outcome is unknown/,
      metadata: { command: 'qom-get', timeoutMs: '20', sent: 'true' },
    });
    const second = it.qmp.run('qom-get', args);
    await it.fake.waitForCommand('qom-get', 2);
    contexts[0]?.reply('late');
    contexts[1]?.reply('mine');
    assert.equal(await second, 'mine');
    assert.deepEqual(it.qmp.statistics, { lateReplies: 1, unknownReplies: 0 });
    assert.equal(lines.filter((line) => line['msg'] === 'qmp reply came after its time limit').length, 1);
  });

  it('a reply with an unknown id, and a repeated one, are ignored', async () => {
    await using it = await pair();
    it.fake.on('query-uuid', (_args, { reply }) => {
      reply({ UUID: 'one' });
      return { UUID: 'two' };
    });
    it.fake.sendRaw('{"return": {"UUID": "forged"}, "id": 4711}\r\n{"return": {}}\r\n{"return": {}, "id": "2"}\r\n');
    assert.equal((await it.qmp.run('query-uuid')).UUID, 'one');
    await it.qmp.run('stop');
    assert.deepEqual(it.qmp.statistics, { lateReplies: 0, unknownReplies: 4 });
    assert.equal(it.qmp.state, 'ready');
  });

  it('past pendingMax nothing is sent; timed-out calls keep their place until answered', async () => {
    await using it = await pair({ pendingMax: 2 });
    const contexts: HandlerContext[] = [];
    it.fake.on('stop', (_args, context) => {
      contexts.push(context);
      return NO_REPLY;
    });
    const first = it.qmp.run('stop');
    await assert.rejects(it.qmp.run('stop', undefined, { timeoutMs: 20 }), { reason: 'QMP_REPLY_TIMEOUT' });
    const full = { code: 'RESOURCE_EXHAUSTED', reason: 'QMP_QUEUE_FULL' };
    await assert.rejects(it.qmp.run('cont'), full);
    contexts[1]?.reply();
    contexts[0]?.reply();
    await first;
    await it.qmp.run('cont');
    assert.equal(it.fake.receivedOf('cont').length, 1);
  });

  it('a descriptor that could not be sent keeps no place, also when its call had timed out before', async () => {
    await using it = await pair({ pendingMax: 1, replyTimeoutMs: 30 });
    const sending = Promise.withResolvers<undefined>();
    const call = it.qmp.addDescriptor({ 'fdset-id': 1 }, () => sending.promise);
    await assert.rejects(call, { reason: 'QMP_REPLY_TIMEOUT' });
    sending.reject(new Error('the helper was killed before it began'));
    await Promise.allSettled([sending.promise]);
    await it.qmp.run('cont', undefined, { timeoutMs: 10_000 });
  });

  it('back-pressure: nothing is lost when the server reads slowly', async () => {
    await using it = await pair({ pendingMax: 2000 });
    it.fake.on('qom-set', (args) => ({ got: String(args['value']).length }));
    const value = 'x'.repeat(64 * 1024);
    const calls = Array.from({ length: 200 }, () => it.qmp.run('qom-set', { path: '/x', property: 'y', value }));
    for (const result of await Promise.all(calls)) assert.deepEqual(result, { got: value.length });
  });

  it('a call that the socket never took says that it was never sent', async () => {
    await using it = await pair();
    it.fake.pauseReading();
    const value = 'x'.repeat(4 * 1024 * 1024);
    const stuck = it.qmp.run('qom-set', { path: '/x', property: 'y', value });
    await assert.rejects(it.qmp.run('quit', undefined, { timeoutMs: 20 }), {
      reason: 'QMP_REPLY_TIMEOUT',
      message: /never sent/,
      metadata: { command: 'quit', timeoutMs: '20', sent: 'false' },
    });
    it.fake.resumeReading();
    await stuck;
    await it.qmp.run('stop');
    assert.equal(it.fake.receivedOf('quit').length, 0);
  });

  it('the log has names and ids of arguments, never a key', async () => {
    const { log, lines } = recordingLogger();
    await using it = await pair({ log });
    await it.qmp.run('object-add', { 'qom-type': 'secret', id: 'key0', data: 'hunter2' });
    await it.qmp.run('qom-set', { path: '/objects/key0', property: 'p', value: 'hunter2' });
    const logged = lines.find((line) => line['command'] === 'object-add');
    assert.deepEqual(logged?.['args'], { 'qom-type': 'secret', id: 'key0' });
    assert.doesNotMatch(JSON.stringify(lines), /hunter2/);
  });
});

describe('qmp connection end', () => {
  const breaks: [string, (fake: FakeQmp) => void][] = [
    ['a dropped connection', (fake) => fake.drop()],
    ['a line that is not JSON', (fake) => fake.sendRaw('{"return": \r\n')],
    ['a line that is not an object', (fake) => fake.sendRaw('[1]\r\n')],
    ['an over-long line', (fake) => fake.sendRaw(`{"event": "${'x'.repeat(5000)}`)],
    ['a malformed event', (fake) => fake.sendRaw('{"event": "STOP"}\r\n')],
    ['a malformed error', (fake) => fake.sendRaw('{"error": "no", "id": 2}\r\n')],
    [
      'a second greeting',
      (fake) => fake.sendRaw('{"QMP": {"version": {"qemu": {"major":7,"minor":2,"micro":0}}}}\r\n'),
    ],
  ];
  for (const [name, cut] of breaks) {
    it(`${name} fails every call and every listener`, async () => {
      await using it = await pair({ lineBytesMax: 4096 });
      it.fake.on('stop', () => NO_REPLY);
      using listener = it.qmp.listen('STOP');
      const ends = [it.qmp.run('stop'), it.qmp.run('stop'), listener.next()];
      await it.fake.waitForCommand('stop', 2);
      cut(it.fake);
      for (const end of ends) await assert.rejects(end, lost);
      const cause = await it.qmp.closed;
      assert.equal(cause.reason, 'QMP_LOST');
      assert.equal(it.qmp.state, 'closed');
      await assert.rejects(it.qmp.run('cont'), lost);
      using late = it.qmp.listen('STOP');
      await assert.rejects(late.next(), lost);
      assert.equal(it.fake.receivedOf('cont').length, 0);
    });
  }

  it('nothing after a fatal line is believed', async () => {
    await using it = await pair();
    using listener = it.qmp.listen('RESUME');
    it.fake.sendRaw('oops\r\n{"timestamp": {"seconds": 1, "microseconds": 0}, "event": "RESUME"}\r\n');
    await assert.rejects(listener.next(), lost);
  });

  it('events that came before the end are handed out before it', async () => {
    await using it = await pair();
    using listener = it.qmp.listen('STOP');
    it.fake.emit('STOP', {});
    it.fake.emit('STOP', {});
    await it.qmp.run('cont');
    it.fake.drop();
    await it.qmp.closed;
    await listener.next();
    await listener.next();
    await assert.rejects(listener.next(), lost);
  });

  it('dispose fails what is under way, frees the socket, and can be repeated', async () => {
    await using it = await pair();
    it.fake.on('stop', () => NO_REPLY);
    const call = assert.rejects(it.qmp.run('stop'), lost);
    await it.qmp[Symbol.asyncDispose]();
    await call;
    assert.equal(it.qmp.state, 'closed');
    await it.qmp[Symbol.asyncDispose]();
  });

  it('quit: the reply and SHUTDOWN come through although QEMU hangs up at once', async () => {
    await using it = await pair();
    it.fake.on('quit', (_args, { server, reply }) => {
      server.emit('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' });
      reply();
      server.hangUp();
      return NO_REPLY;
    });
    using shutdown = it.qmp.listen('SHUTDOWN');
    await it.qmp.run('quit');
    assert.equal((await shutdown.next()).data.reason, 'host-qmp-quit');
    assert.match((await it.qmp.closed).message, /QEMU closed/);
  });

  it('a client can connect again after a drop', async () => {
    await using it = await pair();
    it.fake.drop();
    await it.qmp.closed;
    await using second = await QmpClient.connect({ path: it.fake.path, log: silentLogger() });
    await second.run('stop');
    assert.equal(it.fake.connections, 2);
  });
});
