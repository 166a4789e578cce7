/** bin/qshim against a qshimd of its own. No VM is needed. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectTo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import type { DeleteSandboxResponse__Output } from '../../src/grpc/generated/qshim/v1/DeleteSandboxResponse.ts';
import { TestDaemon, call } from '../support/daemon.ts';
import { FakeApi } from '../support/fake-api.ts';
import { QSHIM, run, start } from '../support/run-qshim.ts';
import { until } from '../support/until.ts';

describe('what is not there', () => {
  it('a sandbox that is to be deleted: the API says so, the command exits with 3', async () => {
    await using daemon = await TestDaemon.start();
    const answer = await call<DeleteSandboxResponse__Output>((done) =>
      daemon.client.sandboxes.delete({ sandboxId: 'typo' }, done),
    );
    assert.equal(answer.notFound, true);
    const { exitCode, stdout, stderr } = await run(['sandbox', 'delete', 'typo'], { socket: daemon.socket });
    assert.equal(exitCode, 3);
    assert.equal(stdout.toString(), '');
    assert.match(stderr, /^qshim: there is no sandbox typo; nothing was deleted \(SANDBOX_NOT_FOUND\)\nhint: .*list/);
  });

  it('every command that names one', async () => {
    await using daemon = await TestDaemon.start();
    for (const args of [
      ['sandbox', 'get', 'typo'],
      ['sandbox', 'stop', 'typo'],
      ['sandbox', 'console', 'typo'],
      ['volume', 'list', 'typo'],
      ['volume', 'detach', 'typo', 'v'],
      ['volume', 'detach-many', 'typo', 'v'],
      ['volume', 'resize', 'typo', 'v', '4096'],
      ['volume', 'keys', 'list', 'typo', 'v'],
    ]) {
      const { exitCode, stderr } = await run(args, { socket: daemon.socket });
      assert.equal(exitCode, 3, args.join(' '));
      assert.match(stderr, /there is no sandbox typo/, args.join(' '));
    }
  });

  it('a sandbox that is watched', async () => {
    await using daemon = await TestDaemon.start();
    const child = start(['--socket', daemon.socket, 'watch', '--sandbox', 'typo']);
    const [said] = (await once(child.stderr, 'data')) as [Buffer];
    assert.match(said.toString(), /^qshim: there is no sandbox typo now/);
    child.kill('SIGINT');
    assert.equal((await child).exitCode, 130);
  });
});

it('qshimd tells its version, which is that of the command', async () => {
  const { stdout } = await run(['--version']);
  const daemon = await execa(join(QSHIM, '../qshimd'), ['--version']);
  assert.equal(`${daemon.stdout}\n`, stdout.toString());
});

describe('a deadline that is further away than a timer reaches', () => {
  it('of the command: it waits on', async () => {
    await using api = await FakeApi.start();
    api.answer('Sandboxes.Get', () => new Promise(() => undefined));
    const patient = start(['--socket', api.socketPath, '--deadline', '3000000000', 'sandbox', 'get', 'sb1']);
    await until('the call', () => Promise.resolve(api.calls.length === 1));
    const hasty = await run(['--deadline', '500', 'sandbox', 'get', 'sb1'], { socket: api.socketPath });
    assert.equal(hasty.exitCode, 5);
    assert.equal(patient.exitCode, null);
    patient.kill('SIGINT');
    assert.equal((await patient).exitCode, 130);
  });

  it('of any client, in every unit that the protocol has: the call goes on', async () => {
    await using daemon = await TestDaemon.start();
    const session = connect('http://localhost', { createConnection: () => connectTo(daemon.socket) });
    using _closed = { [Symbol.dispose]: () => session.destroy() };
    /** Begins a call that has no end of its own. */
    const watch = (timeout: string): { readonly status: Promise<string>; readonly over: () => boolean } => {
      const request = session.request({
        ':method': 'POST',
        ':path': '/qshim.v1.Events/Watch',
        'content-type': 'application/grpc',
        te: 'trailers',
        'grpc-timeout': timeout,
      });
      const { promise, resolve } = Promise.withResolvers<string>();
      let over = false;
      const look = (headers: IncomingHttpHeaders): void => {
        const { 'grpc-status': status } = headers;
        if (status === undefined) return;
        over = true;
        resolve(String(status));
      };
      request.on('error', () => undefined);
      request.on('response', look);
      request.on('trailers', look);
      // A message without compression and without bytes.
      request.end(Buffer.alloc(5));
      request.resume();
      return { status: promise, over: () => over };
    };
    const timeouts = ['99999999H', '99999999M', '99999999S', '2147484S'];
    const patient = timeouts.map(watch);
    // DEADLINE_EXCEEDED
    assert.equal(await watch('500m').status, '4');
    assert.deepEqual(
      patient.map(({ over }) => over()),
      timeouts.map(() => false),
    );
  });
});
