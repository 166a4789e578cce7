import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { ExecRequest, ExecResult } from '../../src/guest/agent.ts';
import { IdentityPort, installPlayer } from '../../src/guest/identity.ts';
import { PlayerMessage, REPLY_BYTES, SYSCALL } from '../../src/guest/player.ts';

const IDENTITY = { uuid: '6f1c24e8-0000-4000-8000-000000000000', hostname: 'clone-one' };
const LIMITS = { timeoutMs: 10_000 };
const BUFFER = 0x50_0000;
const CALLS_AT = 192;
const CALL_BYTES = 64;

interface Call {
  readonly number: number;
  readonly args: readonly bigint[];
  readonly resultTo: number;
}

/** A message as the player reads it. */
function callsOf(message: Buffer): Call[] {
  return Array.from({ length: Number(message.readBigUInt64LE(8)) }, (_, index) => {
    const word = (nth: number): bigint => message.readBigInt64LE(CALLS_AT + index * CALL_BYTES + nth * 8);
    return {
      number: Number(word(0)),
      args: [1, 2, 3, 4, 5, 6].map(word),
      resultTo: Number(word(7)) - BUFFER,
    };
  });
}

interface FakeGuest extends AsyncDisposable {
  readonly port: IdentityPort;
  /** What was sent so far, whole messages. */
  readonly messages: Buffer[];
}

/** The far end of an identity port: answers each message with what `answer` gives. */
async function fakeGuest(answer: (message: Buffer, socket: Socket) => Buffer | undefined): Promise<FakeGuest> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-identity-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const messages: Buffer[] = [];
  const server = stack.use(createServer());
  server.on('connection', (socket) => {
    let received = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 32 || received.length < received.readBigUInt64LE(0)) return;
      messages.push(received);
      const reply = answer(received, socket);
      received = Buffer.alloc(0);
      if (reply !== undefined) socket.write(reply);
    });
  });
  server.listen(join(directory, 'port'));
  await once(server, 'listening');
  const port = stack.use(await IdentityPort.connect(join(directory, 'port')));
  const owned = stack.move();
  return { port, messages, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** What a player answers that has played all: a sample of ones, and a clock that is `behindMs` behind the host's. */
function played(message: Buffer, behindMs = 0): Buffer {
  const reply = Buffer.from(message.subarray(0, REPLY_BYTES));
  for (const { number, args } of callsOf(message)) {
    const at = Number(args[number === SYSCALL.getrandom ? 0 : 1]) - BUFFER;
    if (number === SYSCALL.getrandom) reply.fill(1, at, at + 16);
    if (number !== SYSCALL.clockGettime) continue;
    const nowMs = Date.now() - behindMs;
    reply.writeBigInt64LE(BigInt(Math.floor(nowMs / 1000)), at);
    reply.writeBigInt64LE(BigInt(nowMs % 1000) * 1_000_000n, at + 8);
  }
  reply.writeBigUInt64LE(0n, 8);
  return reply;
}

describe('identity of a clone', () => {
  it('entropy first, then what is drawn from it; the name; only files that the guest has', async () => {
    await using guest = await fakeGuest((message) => played(message));
    const assumed = await guest.port.assume(IDENTITY, { machineId: '/etc/machine-id' }, LIMITS);
    assert.deepEqual(assumed.randomSample, Buffer.alloc(16, 1));
    assert.ok(Math.abs(assumed.clockErrorMs) < 1000);
    const [message = Buffer.alloc(0)] = guest.messages;
    assert.equal(guest.messages.length, 1);
    const calls = callsOf(message);
    const { openat, ioctl, clockSettime, sethostname, write, getrandom, clockGettime } = SYSCALL;
    assert.deepEqual(
      calls.map(({ number }) => number),
      [openat, ioctl, openat, ioctl, clockSettime, sethostname, openat, write, getrandom, clockGettime],
    );
    assert.deepEqual(
      calls.filter(({ number }) => number === ioctl).map(({ args }) => args[1]),
      [0x4008_5203n, 0x5207n],
    );
    const text = message.toString('latin1');
    assert.ok(text.includes('clone-one') && text.includes('6f1c24e8000040008000000000000000\n'));
    assert.ok(!text.includes('product_uuid'));
  });

  it('a descriptor goes to the call behind the one that opened it', async () => {
    await using guest = await fakeGuest((message) => played(message));
    await guest.port.assume(IDENTITY, { productUuid: '/run/a', bootId: '/run/b' }, LIMITS);
    const calls = callsOf(guest.messages[0] ?? Buffer.alloc(0));
    for (const [index, { number, resultTo }] of calls.entries()) {
      const expected = number === SYSCALL.openat ? CALLS_AT + (index + 1) * CALL_BYTES + 8 : 16;
      assert.equal(resultTo, expected, `call ${index}`);
    }
  });

  it('two clones are given different seeds', async () => {
    await using one = await fakeGuest((message) => played(message));
    await using two = await fakeGuest((message) => played(message));
    for (const { port } of [one, two]) await port.assume(IDENTITY, {}, LIMITS);
    const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = [one, two].map(({ messages }) => messages[0]);
    const pool = Number(callsOf(first)[1]?.args[2]) - BUFFER;
    assert.equal(first.readInt32LE(pool), 512, 'bits of entropy');
    const seed = (message: Buffer): Buffer => message.subarray(pool + 8, pool + 72);
    assert.notDeepEqual(seed(first), Buffer.alloc(64));
    assert.notDeepEqual(seed(first), seed(second));
  });

  it('a clock that is still off is set again', async () => {
    let times = 0;
    await using guest = await fakeGuest((message) => {
      times += 1;
      return played(message, times === 1 ? 5000 : 0);
    });
    const { clockErrorMs, randomSample } = await guest.port.assume(IDENTITY, {}, LIMITS);
    assert.ok(Math.abs(clockErrorMs) < 1000);
    assert.deepEqual(randomSample, Buffer.alloc(16, 1), 'the sample of the first message');
    assert.deepEqual(
      callsOf(guest.messages[1] ?? Buffer.alloc(0)).map(({ number }) => number),
      [SYSCALL.clockSettime, SYSCALL.clockGettime],
    );
  });

  it('a call that failed, a guest that leaves, one that is silent, one that floods: each is an error', async () => {
    await using failing = await fakeGuest((message) => {
      const reply = played(message);
      reply.writeBigUInt64LE(2n, 8);
      reply.writeBigInt64LE(-13n, 16);
      return reply;
    });
    await assert.rejects(failing.port.assume(IDENTITY, {}, LIMITS), {
      code: 'UNAVAILABLE',
      reason: 'CLONE_IDENTITY_FAILED',
      message: /failed in the guest with -13/,
    });
    await using leaving = await fakeGuest((_message, socket) => {
      socket.destroy();
      return undefined;
    });
    await assert.rejects(leaving.port.assume(IDENTITY, {}, LIMITS), { reason: 'CLONE_IDENTITY_FAILED' });
    await using silent = await fakeGuest(() => undefined);
    await assert.rejects(silent.port.assume(IDENTITY, {}, { timeoutMs: 20 }), {
      code: 'DEADLINE_EXCEEDED',
      reason: 'CLONE_IDENTITY_TIMEOUT',
    });
    await using flooding = await fakeGuest(() => Buffer.alloc(1_000_000));
    await assert.rejects(flooding.port.assume(IDENTITY, {}, LIMITS), { reason: 'CLONE_IDENTITY_FAILED' });
  });
});

describe('messages for the player', () => {
  it('a message has bounds', () => {
    const full = new PlayerMessage();
    for (let call = 0; call < 32; call += 1) full.call(SYSCALL.write, [call]);
    assert.throws(() => full.call(SYSCALL.write, [0]), RangeError);
    assert.throws(() => full.data(Buffer.alloc(0x4000)), RangeError);
    assert.throws(() => full.reply(REPLY_BYTES), RangeError);
  });

  it('negative numbers and large words are written as the kernel reads them', () => {
    const message = new PlayerMessage();
    message.call(SYSCALL.openat, [-100, 0xffff_ffff_ffff_fff0n]);
    const [call] = callsOf(message.bytes());
    assert.deepEqual(call?.args.slice(0, 2), [-100n, -16n]);
  });
});

describe('installation of the player', () => {
  const player = Buffer.from('its bytes');
  const agent = (result: Partial<ExecResult>) => ({
    requests: [] as ExecRequest[],
    async exec(request: ExecRequest): Promise<ExecResult> {
      this.requests.push(request);
      const empty = Buffer.alloc(0);
      return Promise.resolve({ exitCode: 0, stdout: empty, stderr: empty, truncated: false, pid: 1, ...result });
    },
  });

  it('it tells which files the guest has', async () => {
    const some = agent({ stdout: Buffer.from('bootId=/run/qshim-bootId\nmachineId=/etc/machine-id\n') });
    assert.deepEqual(await installPlayer(some, player, 'port.name', LIMITS), {
      bootId: '/run/qshim-bootId',
      machineId: '/etc/machine-id',
    });
    const [request] = some.requests;
    assert.equal(request?.args?.at(-1), 'port.name');
    assert.equal(request.input, player);
    assert.deepEqual(await installPlayer(agent({}), player, 'port.name', LIMITS), {});
  });

  it('a guest that cannot is named as unfit, with its reason', async () => {
    const unfit = agent({ exitCode: 1, stdout: Buffer.from('error=no port named port.name\n') });
    await assert.rejects(installPlayer(unfit, player, 'port.name', LIMITS), {
      code: 'FAILED_PRECONDITION',
      reason: 'TEMPLATE_GUEST_UNFIT',
      message: 'the guest cannot be a template: no port named port.name',
    });
  });
});
