import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sleep } from '../../src/base/deadline.ts';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgentError } from '../../src/guest/agent.ts';
import { AgentLink } from '../../src/guest/link.ts';
import { agentPair as pair, shimFailure as failure } from '../support/agent-pair.ts';
import { silence } from '../support/fake-agent.ts';
import { until } from '../support/until.ts';

const TIMEOUT = failure('DEADLINE_EXCEEDED', 'GUEST_AGENT_TIMEOUT');
const LOST = failure('UNAVAILABLE', 'GUEST_AGENT_LOST');

describe('readiness', () => {
  it('an agent that answers is ready, and a sync comes before the first command', async () => {
    await using it = await pair();
    assert.equal(it.agent.state, 'down');
    await it.agent.waitReady({ timeoutMs: 5000 });
    assert.equal(it.agent.state, 'ready');
    await it.agent.ping();
    assert.equal(it.fake.seen[0], 'guest-sync-delimited');
    assert.equal(it.fake.seen.at(-1), 'guest-ping');
  });

  it('a guest that starts slowly is waited for, with few syncs in its buffer', async () => {
    await using it = await pair({ running: false });
    const ready = it.agent.waitReady({ timeoutMs: 10_000 });
    await sleep(700);
    assert.equal(it.agent.state, 'down');
    assert.deepEqual(it.fake.seen, []);
    it.fake.start();
    await ready;
    assert.ok(it.fake.seen.length <= 8, `${it.fake.seen.length} syncs were waiting`);
    await it.agent.ping();
  });

  it('a socket that is not there yet is waited for', async () => {
    await using it = await pair();
    await it.fake.close();
    const ready = it.agent.waitReady({ timeoutMs: 10_000 });
    await sleep(100);
    await it.fake.listen();
    await ready;
  });

  it('a guest that never answers is a timeout, and so is a socket that never comes', async () => {
    await using it = await pair({ running: false });
    await assert.rejects(it.agent.waitReady({ timeoutMs: 120 }), TIMEOUT);
    await it.fake.close();
    await assert.rejects(it.agent.waitReady({ timeoutMs: 60 }), TIMEOUT);
    assert.equal(it.agent.state, 'down');
  });

  it('a caller that gives up ends its wait with its own reason', async () => {
    await using it = await pair({ running: false });
    const abort = new AbortController();
    const ready = it.agent.waitReady({ timeoutMs: 10_000, signal: abort.signal });
    const reason = new Error('enough');
    abort.abort(reason);
    await assert.rejects(ready, reason);
  });

  it('a nudge asks at once, within the limit of what may be outstanding', async () => {
    await using it = await pair({ running: false });
    const ready = it.agent.waitReady({ timeoutMs: 10_000 });
    await sleep(50);
    for (let index = 0; index < 100; index += 1) it.agent.nudge();
    it.fake.start();
    await ready;
    const syncs = it.fake.seen.length;
    assert.ok(syncs > 8 && syncs <= 16, `${syncs} syncs: a nudge sends one, and there is a limit`);
  });
});

describe('one request at a time', () => {
  it('replies reach their requests in order', async () => {
    await using it = await pair({
      answer: async (request) => {
        await sleep(request.execute === 'guest-ping' ? 20 : 1);
        return request.execute === 'guest-info' ? { version: '1', supported_commands: [] } : [];
      },
    });
    const order: string[] = [];
    await Promise.all([
      it.agent.ping().then(() => order.push('ping')),
      it.agent.info().then(({ version }) => order.push(`info ${version}`)),
      it.agent.disks().then((disks) => order.push(`disks ${disks.length}`)),
    ]);
    assert.deepEqual(order, ['ping', 'info 1', 'disks 0']);
    assert.deepEqual(
      it.fake.seen.filter((name) => name !== 'guest-sync-delimited'),
      ['guest-ping', 'guest-info', 'guest-get-disks'],
    );
  });

  it('a full queue refuses and leaves those who wait alone', async () => {
    const gate = Promise.withResolvers<unknown>();
    await using it = await pair({ answer: () => gate.promise }, { queueMax: 2 });
    const waiting = [it.agent.ping(), it.agent.ping(), it.agent.ping()];
    await assert.rejects(it.agent.ping(), failure('RESOURCE_EXHAUSTED', 'AGENT_QUEUE_FULL'));
    gate.resolve({});
    await Promise.all(waiting);
  });

  it("the agent's own refusal is a GuestAgentError, and the next request works", async () => {
    await using it = await pair({
      answer: (request) => {
        if (request.execute !== 'guest-get-disks') return {};
        return Object.assign(new Error('not here'), { name: 'CommandNotFound' });
      },
    });
    await assert.rejects(it.agent.disks(), (error) => {
      assert.ok(error instanceof GuestAgentError);
      assert.deepEqual([error.errorClass, error.command], ['CommandNotFound', 'guest-get-disks']);
      return true;
    });
    assert.equal(it.agent.state, 'ready');
    await it.agent.ping();
  });

  it('disposing fails what waits', async () => {
    await using it = await pair({ answer: () => silence });
    const pings = [it.agent.ping(), it.agent.ping()];
    const failed = Promise.all(pings.map((ping) => assert.rejects(ping, failure('UNAVAILABLE', 'GUEST_AGENT_CLOSED'))));
    await sleep(50);
    await it.agent[Symbol.asyncDispose]();
    await failed;
    await assert.rejects(it.agent.ping(), failure('UNAVAILABLE', 'GUEST_AGENT_CLOSED'));
  });
});

describe('what comes late or wrong', () => {
  it("a late reply is nobody's", async () => {
    const gate = Promise.withResolvers<unknown>();
    await using it = await pair(
      {
        answer: (request) =>
          request.execute === 'guest-get-disks' ? gate.promise : { version: 'right', supported_commands: [] },
      },
      { requestTimeoutMs: 150 },
    );
    await assert.rejects(it.agent.disks(), TIMEOUT);
    assert.equal(it.agent.state, 'down');
    const ready = it.agent.waitReady({ timeoutMs: 5000 });
    await until('a second connection', () => it.fake.connections >= 2);
    gate.resolve({ version: 'late', supported_commands: [] });
    await ready;
    assert.equal((await it.agent.info()).version, 'right');
  });

  it('a reply that comes late on the same connection is passed over by its id', async () => {
    await using it = await pair({
      answer: (request) => {
        request.send('{"return": {"version": "late", "supported_commands": []}, "id": 1}\n');
        return { version: 'right', supported_commands: [] };
      },
    });
    assert.equal((await it.agent.info()).version, 'right');
  });

  for (const [what, bytes] of [
    ['text', 'login: \n'],
    ['a number', '17\n'],
    ['an array', '[]\n'],
    ['binary with the sentinel', Buffer.from([0, 0xff, 1, 0x0a])],
  ] as const) {
    it(`${what} instead of a reply fails one request`, async () => {
      let first = true;
      await using it = await pair({
        answer: (request) => {
          if (!first) return {};
          first = false;
          request.send(bytes);
          return silence;
        },
      });
      await assert.rejects(it.agent.ping(), failure('UNAVAILABLE', 'GUEST_AGENT_GARBAGE'));
      await it.agent.ping();
      assert.deepEqual(it.fake.seen, ['guest-sync-delimited', 'guest-ping', 'guest-sync-delimited', 'guest-ping']);
    });
  }

  it('a reply of the wrong shape is garbage', async () => {
    await using it = await pair({ answer: () => [{ name: 7 }] });
    await assert.rejects(it.agent.disks(), failure('UNAVAILABLE', 'GUEST_AGENT_GARBAGE'));
  });

  it('a line that is too long is not kept', async () => {
    let long = true;
    await using it = await pair({ answer: () => (long ? 'x'.repeat(5000) : {}) }, { lineBytesMax: 2000 });
    await assert.rejects(it.agent.ping(), failure('RESOURCE_EXHAUSTED', 'GUEST_AGENT_REPLY_TOO_LARGE'));
    long = false;
    await it.agent.ping();
  });

  it('a guest that floods an idle port loses the connection, not the client', async () => {
    await using it = await pair();
    await it.agent.ping();
    it.fake.send('noise\n');
    await sleep(50);
    await it.agent.ping();
    assert.equal(it.fake.connections, 2);
  });

  it('left-overs before the answer to the sync are thrown away', async () => {
    await using it = await pair({ running: false });
    const ready = it.agent.waitReady({ timeoutMs: 5000 });
    await sleep(30);
    it.fake.send('{"return": {}}\n{"return": 12}\nhalf a li');
    it.fake.start();
    await ready;
    await it.agent.ping();
  });
});

describe('an agent that comes and goes', () => {
  it('a request that dies with the agent is lost, not late', async () => {
    await using it = await pair();
    it.fake.answer = () => silence;
    const ping = it.agent.ping();
    const rejected = assert.rejects(ping, LOST);
    await until('the agent is asked', () => it.fake.seen.includes('guest-ping'));
    it.fake.stop();
    it.fake.answer = () => ({});
    it.fake.start();
    it.agent.nudge();
    await rejected;
    await it.agent.ping();
  });

  it('without a nudge it is found lost as well, before its time is over', async () => {
    await using it = await pair({}, { requestTimeoutMs: 60_000 });
    it.fake.answer = () => silence;
    const rejected = assert.rejects(it.agent.ping(), LOST);
    await until('the agent is asked', () => it.fake.seen.includes('guest-ping'));
    it.fake.stop();
    it.fake.start();
    await rejected;
  });

  it('a refusal that comes after a probe is still a refusal', async () => {
    const gate = Promise.withResolvers<unknown>();
    await using it = await pair({ answer: () => gate.promise });
    const ping = it.agent.ping();
    const rejected = assert.rejects(ping, GuestAgentError);
    await until('the agent is asked', () => it.fake.seen.includes('guest-ping'));
    it.agent.nudge();
    await sleep(20);
    gate.resolve(new Error('no'));
    await rejected;
    it.fake.answer = () => ({});
    await it.agent.ping();
  });

  it('a reply that comes after a probe is still a reply', async () => {
    const gate = Promise.withResolvers<unknown>();
    await using it = await pair({ answer: () => gate.promise });
    const ping = it.agent.ping();
    await until('the agent is asked', () => it.fake.seen.includes('guest-ping'));
    it.agent.nudge();
    await sleep(20);
    gate.resolve({});
    await ping;
    await it.agent.ping();
    assert.equal(it.fake.connections, 1);
  });

  it('a command is not put before an agent that is down', async () => {
    await using it = await pair({}, { requestTimeoutMs: 200 });
    await it.agent.ping();
    it.fake.stop();
    await sleep(1100);
    const failed = await it.agent.exec({ path: '/bin/false', timeoutMs: 200 }).catch((error: unknown) => error);
    assert.ok(TIMEOUT(failed) && failed instanceof ShimError);
    assert.equal(failed.metadata['sent'], 'false');
    it.fake.start();
    await it.agent.ping();
    assert.ok(!it.fake.seen.includes('guest-exec'));
  });

  it('a command that timed out unread is not run by an agent that starts later', async () => {
    await using it = await pair({}, { requestTimeoutMs: 200 });
    await it.agent.ping();
    it.fake.stop();
    await assert.rejects(it.agent.exec({ path: '/bin/false', timeoutMs: 200 }), TIMEOUT);
    const ping = it.agent.ping();
    await until('a second connection', () => it.fake.connections >= 2);
    it.fake.start();
    await ping;
    assert.ok(!it.fake.seen.includes('guest-exec'));
  });

  it('QEMU gone is UNAVAILABLE at once; QEMU back is found again', async () => {
    await using it = await pair();
    it.fake.answer = (request) => {
      if (request.execute === 'guest-ping') it.fake.hangUp();
      return [];
    };
    await assert.rejects(it.agent.ping(), LOST);
    assert.deepEqual(await it.agent.disks(), []);
    await it.fake.close();
    await sleep(20);
    assert.equal(it.agent.state, 'down');
    await assert.rejects(it.agent.disks(), LOST);
    await it.fake.listen();
    assert.deepEqual(await it.agent.disks(), []);
  });
});

describe('a hostile guest', () => {
  it('that answers a sync with anything but its answer loses the connection', async () => {
    await using it = await pair({ running: false });
    const link = await AgentLink.connect({ path: it.path, log: silentLogger(), budget: undefined });
    const { promise: gone, resolve } = Promise.withResolvers<void>();
    using _listening = link.listen({ line: (line) => link.answered(line), gone: resolve });
    link.sendSync();
    await until('a connection', () => it.fake.connections > 0);
    const line = Buffer.concat([Buffer.of(0xff), Buffer.from('{"return":1}\n')]);
    // 200 lines, of few bytes each: nothing is too long, only there are too many.
    it.fake.send(Buffer.concat(Array.from({ length: 200 }, () => line)));
    await gone;
  });

  it('that sends replies to requests which nobody made fails one request', async () => {
    await using it = await pair({
      answer: ({ send }) => {
        for (let index = 0; index < 100; index += 1) send(`{"return":{},"id":"other-${index}"}\n`);
        return silence;
      },
    });
    await assert.rejects(it.agent.ping(), failure('UNAVAILABLE', 'GUEST_AGENT_GARBAGE'));
  });

  it('that never answers a command whose caller has gone holds up the next only for the time of that command', async () => {
    let hangs = true;
    await using it = await pair({ answer: () => (hangs ? silence : {}) }, { requestTimeoutMs: 30_000 });
    const abort = new AbortController();
    const first = it.agent.exec({ path: '/bin/true', timeoutMs: 700, signal: abort.signal });
    await until('the agent is asked', () => it.fake.seen.includes('guest-exec'));
    // Its syncs are not answered either, as of an agent that hangs.
    it.fake.stop();
    abort.abort(new Error('enough'));
    await assert.rejects(first, /enough/);
    const ping = it.agent.ping();
    const over = new AbortController();
    ping.catch(() => undefined).finally(() => over.abort());
    await until('another connection, or an answer', () => it.fake.connections !== 1 || over.signal.aborted);
    assert.equal(it.fake.connections, 2, 'the connection with the lost command is given up');
    hangs = false;
    it.fake.start();
    await ping;
  });

  it('a command whose caller went before it was sent is never sent', async () => {
    await using it = await pair({ running: false });
    const abort = new AbortController();
    const first = it.agent.exec({ path: '/bin/true', timeoutMs: 30_000, signal: abort.signal });
    await sleep(50);
    abort.abort(new Error('enough'));
    await assert.rejects(first, /enough/);
    it.fake.start();
    await it.agent.waitReady({ timeoutMs: 30_000 });
    await it.agent.ping();
    assert.ok(!it.fake.seen.includes('guest-exec'), it.fake.seen.join(' '));
  });
});
