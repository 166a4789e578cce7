import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Metadata, status } from '@grpc/grpc-js';
import fc from 'fast-check';
import { ShimError } from '../../src/base/errors.ts';
import type { PassedCall } from '../../src/relay/daemon.ts';
import { DATA_BYTES_MAX, encodeFrame, FrameReader, HEADER_BYTES, MESSAGE } from '../../src/relay/ttrpc-frames.ts';
import { requestCodec, responseCodec } from '../../src/relay/ttrpc-messages.ts';
import { TtrpcProxy } from '../../src/relay/ttrpc-proxy.ts';
import type { Request } from '../../src/grpc/generated/ttrpc/Request.ts';
import type { Response__Output } from '../../src/grpc/generated/ttrpc/Response.ts';
import { toServiceError } from '../../src/grpc/status.ts';
import { until } from '../support/until.ts';

describe('frames of ttrpc', () => {
  const frame = fc.record({
    streamId: fc.integer({ min: 0, max: 0xffffffff }),
    type: fc.integer({ min: 0, max: 255 }),
    data: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  });

  it('however the bytes are cut, the same frames come out', () => {
    const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 8 }), cuts, (frames, lengths) => {
        let rest = Buffer.concat(frames.map(({ streamId, type, data }) => encodeFrame(streamId, type, data)));
        const reader = new FrameReader();
        const read = [];
        for (let turn = 0; rest.length > 0; turn += 1) {
          const length = lengths[turn % lengths.length] ?? 1;
          read.push(...reader.take(rest.subarray(0, length)));
          rest = rest.subarray(length);
        }
        assert.deepEqual(
          read,
          frames.map((each) => ({ ...each, flags: 0 })),
        );
      }),
    );
  });

  it('the header is big-endian: length, stream, type, flags', () => {
    const bytes = encodeFrame(0x01020304, MESSAGE.response, Buffer.alloc(0x0506));
    assert.equal(bytes.subarray(0, HEADER_BYTES).toString('hex'), '00000506010203040200');
  });

  it('data that is too long is passed over, and what follows is read', () => {
    const reader = new FrameReader();
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32BE(DATA_BYTES_MAX + 1, 0);
    header.writeUInt32BE(7, 4);
    header[8] = MESSAGE.request;
    assert.deepEqual(reader.take(header), []);
    assert.deepEqual(reader.take(Buffer.alloc(DATA_BYTES_MAX)), []);
    const [long, next] = reader.take(
      Buffer.concat([Buffer.alloc(1), encodeFrame(9, MESSAGE.request, Buffer.from('x'))]),
    );
    assert.deepEqual([long?.streamId, long?.data], [7, undefined]);
    assert.deepEqual([next?.streamId, next?.data?.toString()], [9, 'x']);
    assert.throws(() => encodeFrame(1, MESSAGE.request, Buffer.alloc(DATA_BYTES_MAX + 1)), RangeError);
  });

  it('what is not ttrpc is refused at its first byte', () => {
    assert.throws(() => new FrameReader().take(Buffer.from('PRI * HTTP/2.0')), /cannot begin with byte 80/);
  });
});

describe('ttrpc calls, passed on as gRPC ones', () => {
  let directory: string;
  let socket: string;
  let proxy: TtrpcProxy;
  let answer: (call: PassedCall) => Promise<Buffer>;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'qshim-ttrpc-'));
    socket = join(directory, 'ttrpc.sock');
    proxy = new TtrpcProxy((call) => answer(call), { write: () => undefined });
    await proxy.listen(socket);
  });
  after(async () => {
    proxy.close();
    await rm(directory, { recursive: true });
  });

  it('a call of version 2 and of version 3 arrives with payload, namespace and deadline', async () => {
    const calls: PassedCall[] = [];
    answer = (call) => {
      calls.push(call);
      return Promise.resolve(Buffer.from('out'));
    };
    using client = await Caller.connect(socket);
    for (const version of [2, 3]) {
      const response = await client.call({
        service: `containerd.task.v${version}.Task`,
        method: 'State',
        payload: Buffer.from('in'),
        timeoutNano: 60e9,
        metadata: [
          { key: 'containerd-namespace-ttrpc', value: 'ns' },
          { key: 'other', value: 'x' },
        ],
      });
      assert.deepEqual([response.status?.code, response.payload.toString()], [status.OK, 'out']);
    }
    for (const { path, request, metadata, deadline } of calls) {
      assert.equal(path, '/containerd.task.v3.Task/State');
      assert.equal(request.toString(), 'in');
      assert.deepEqual(metadata.getMap(), { 'containerd-namespace': 'ns' });
      assert.ok(Math.abs(Number(deadline) - Date.now() - 60_000) < 30_000);
    }
    await client.call(CONNECT);
    assert.equal(calls.at(-1)?.deadline, Infinity);
  });

  it('answers come as they are ready, a held Wait keeps nobody waiting', async () => {
    const held = Promise.withResolvers<Buffer>();
    answer = ({ path }) => (path.endsWith('/Wait') ? held.promise : Promise.resolve(Buffer.from('now')));
    using client = await Caller.connect(socket);
    const wait = client.call({ ...CONNECT, method: 'Wait' });
    assert.equal((await client.call(CONNECT)).payload.toString(), 'now');
    held.resolve(Buffer.from('then'));
    assert.equal((await wait).payload.toString(), 'then');
  });

  it("the daemon's error arrives whole; one that grpc-js made, with code and words", async () => {
    using client = await Caller.connect(socket);
    answer = () =>
      Promise.reject(toServiceError(new ShimError('NOT_FOUND', 'no such thing', { reason: 'CONTAINER_NOT_FOUND' })));
    const own = await client.call(CONNECT);
    assert.deepEqual([own.status?.code, own.status?.message], [status.NOT_FOUND, 'no such thing']);
    assert.equal(own.status?.details[0]?.type_url, 'type.googleapis.com/google.rpc.ErrorInfo');
    answer = () =>
      Promise.reject(
        Object.assign(new Error('x'), { code: status.DEADLINE_EXCEEDED, details: 'late', metadata: new Metadata() }),
      );
    const local = await client.call(CONNECT);
    assert.deepEqual([local.status?.code, local.status?.message], [status.DEADLINE_EXCEEDED, 'late']);
  });

  it('what is not served, malformed or too long is answered, and the connection goes on', async () => {
    answer = () => Promise.resolve(Buffer.from('fine'));
    using client = await Caller.connect(socket);
    const codeOf = async (response: Promise<Response__Output>): Promise<number | undefined> =>
      (await response).status?.code;
    assert.equal(await codeOf(client.call({ ...CONNECT, service: 'a.b.C' })), status.UNIMPLEMENTED);
    assert.equal(await codeOf(client.call({ ...CONNECT, method: 'constructor' })), status.UNIMPLEMENTED);
    assert.equal(await codeOf(client.raw(0x1001, Buffer.from([0x0a, 0x7f]))), status.INVALID_ARGUMENT);
    assert.equal(await codeOf(client.raw(0x1002, Buffer.alloc(0))), status.INVALID_ARGUMENT, 'an even stream');
    assert.equal(await codeOf(client.raw(0x0fff, Buffer.alloc(0))), status.INVALID_ARGUMENT, 'a used stream');
    assert.equal(await codeOf(client.raw(0x2001, Buffer.alloc(0), MESSAGE.data)), status.INVALID_ARGUMENT);
    assert.equal(await codeOf(client.long(0x3001)), status.RESOURCE_EXHAUSTED);
    answer = () => Promise.resolve(Buffer.alloc(DATA_BYTES_MAX));
    client.nextStreamId = 0x4001;
    assert.equal(await codeOf(client.call(CONNECT)), status.RESOURCE_EXHAUSTED, 'a response too long for a frame');
    answer = () => Promise.resolve(Buffer.from('fine'));
    assert.equal((await client.call(CONNECT)).payload.toString(), 'fine');
  });

  it('a caller that goes ends its calls; one that does not speak ttrpc is cut off', async () => {
    let signal: AbortSignal | undefined;
    answer = ({ cancelled }) => {
      signal = cancelled;
      return new Promise(() => undefined);
    };
    {
      using client = await Caller.connect(socket);
      void client.call(CONNECT);
      await until('the call is passed on', () => Promise.resolve(signal !== undefined));
    }
    await until('the call is cancelled', () => Promise.resolve(signal?.aborted === true));
    const stranger = connect(socket);
    stranger.write('GET / HTTP/1.1\r\n\r\n');
    await once(stranger, 'close');
  });
});

const CONNECT: Request = { service: 'containerd.task.v2.Task', method: 'Connect' };

/** A ttrpc client, as containerd's: streams with odd numbers, one call each. */
class Caller implements Disposable {
  nextStreamId = 1;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (response: Response__Output) => void>();

  private constructor(socket: Socket) {
    this.#socket = socket;
    const reader = new FrameReader();
    socket.on('data', (bytes) => {
      for (const { streamId, data } of reader.take(bytes)) {
        assert.ok(data);
        this.#waiting.get(streamId)?.(responseCodec.deserialize(data));
      }
    });
  }

  static async connect(path: string): Promise<Caller> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new Caller(socket);
  }

  call(request: Request): Promise<Response__Output> {
    const streamId = this.nextStreamId;
    this.nextStreamId += 2;
    return this.raw(streamId, requestCodec.serialize(request));
  }

  raw(streamId: number, data: Buffer, type: number = MESSAGE.request): Promise<Response__Output> {
    const { promise, resolve } = Promise.withResolvers<Response__Output>();
    this.#waiting.set(streamId, resolve);
    this.#socket.write(encodeFrame(streamId, type, data));
    return promise;
  }

  /** A frame with more data than is allowed. */
  long(streamId: number): Promise<Response__Output> {
    const { promise, resolve } = Promise.withResolvers<Response__Output>();
    this.#waiting.set(streamId, resolve);
    const header = encodeFrame(streamId, MESSAGE.request, Buffer.alloc(0));
    header.writeUInt32BE(DATA_BYTES_MAX + 1, 0);
    this.#socket.write(Buffer.concat([header, Buffer.alloc(DATA_BYTES_MAX + 1)]));
    return promise;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
