/** What bin/qshim does when things go wrong. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import { FakeApi, type ApiError } from '../support/fake-api.ts';
import { record, run, start } from '../support/run-qshim.ts';

describe('failures', () => {
  const table: readonly (readonly [ApiError, number])[] = [
    [{ code: 'INVALID_ARGUMENT', message: 'm', reason: 'INVALID_ID' }, 1],
    [{ code: 'NOT_FOUND', message: 'm', reason: 'VOLUME_NOT_FOUND' }, 3],
    [{ code: 'ALREADY_EXISTS', message: 'm', reason: 'OTHER_SPEC' }, 4],
    [{ code: 'FAILED_PRECONDITION', message: 'm', reason: 'NOT_RUNNING' }, 4],
    [{ code: 'ABORTED', message: 'm', reason: 'RACED' }, 4],
    [{ code: 'PERMISSION_DENIED', message: 'm', reason: 'OUTSIDE_ALLOWED_ROOTS' }, 7],
    [{ code: 'RESOURCE_EXHAUSTED', message: 'm', reason: 'NO_SLOT' }, 8],
    [{ code: 'UNAVAILABLE', message: 'm', reason: 'QEMU_GONE' }, 1],
  ];

  it('each status has its exit code, and JSON carries reason and metadata', async () => {
    await using api = await FakeApi.start();
    for (const [error, expected] of table) {
      api.fail('Volumes.Get', { ...error, metadata: { field: 'f' } });
      const { exitCode, stdout, stderr } = await run(['volume', 'get', 'sb1', 'v', '--json'], {
        socket: api.socketPath,
      });
      assert.equal(exitCode, expected, error.code);
      assert.equal(stdout.length, 0);
      assert.deepEqual(JSON.parse(stderr), {
        error: { code: error.code, reason: error.reason, message: 'm', metadata: { field: 'f' } },
      });
    }
  });

  it('no socket: exit 6, a hint, and no stack trace', async () => {
    const { exitCode, stderr } = await run(['sandbox', 'list', '--socket', '/nonexistent/qshim.sock']);
    assert.equal(exitCode, 6);
    assert.match(stderr, /^qshim: no daemon answers at \/nonexistent\/qshim\.sock: .* \(DAEMON_UNREACHABLE\)\nhint: /);
    assert.equal(stderr.trimEnd().split('\n').length, 2);
  });

  it('a socket on which nobody listens: exit 6', async () => {
    await using cleanup = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'qshim-cli-'));
    cleanup.defer(() => rm(directory, { recursive: true, force: true }));
    const path = join(directory, 's.sock');
    // A listener that is killed leaves its socket file behind; one that closes takes it along.
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    await execa(process.execPath, ['-e', script], { reject: false });
    const { exitCode, stderr } = await run(['volume', 'list'], { socket: path });
    assert.equal(exitCode, 6);
    assert.match(stderr, /nobody listens/);
  });

  it('a peer that is no gRPC server ends with the deadline', async () => {
    await using cleanup = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'qshim-cli-'));
    cleanup.defer(() => rm(directory, { recursive: true, force: true }));
    const server = createServer(() => undefined).listen(join(directory, 's.sock'));
    cleanup.defer(() => void server.close());
    await once(server, 'listening');
    const result = await run(['volume', 'list', '--deadline', '300'], { socket: join(directory, 's.sock') });
    assert.equal(result.exitCode, 5);
    assert.match(result.stderr, /the --deadline has passed/);
    assert.doesNotMatch(result.stderr, /the daemon goes on/, 'a look begins nothing');
    const change = ['volume', 'detach', 'sb', 'v', '--deadline', '300'];
    const changed = await run(change, { socket: join(directory, 's.sock') });
    assert.equal(changed.exitCode, 5);
    assert.match(
      changed.stderr,
      /the daemon goes on with what it began \(`qshim volume get sb v` shows how it ended\)/,
    );
  });

  it('wrong usage exits with 2 before anything is sent', async () => {
    await using api = await FakeApi.start();
    const wrong: readonly (readonly string[])[] = [
      [],
      ['nonsense'],
      ['sandbox'],
      ['sandbox', 'create'],
      ['sandbox', 'create', 'x', '--vcpus', '-1'],
      ['volume', 'attach', 'sb1', 'v'],
      ['volume', 'attach', 'sb1', 'v', '--raw', 'a', '--qcow2', 'b'],
      ['volume', 'attach', 'sb1', 'v', '--raw', 'a', '--format', 'if-empty'],
      ['volume', 'attach', 'sb1', 'v', '--raw', 'a', '--cache', 'nine'],
    ];
    for (const args of wrong) {
      const { exitCode, stdout, stderr } = await run(args, { socket: api.socketPath });
      assert.equal(exitCode, 2, args.join(' '));
      assert.equal(stdout.length, 0);
      assert.notEqual(stderr, '');
    }
    assert.deepEqual(api.calls, []);
    const { stderr } = await run(['sandbox', 'creat', '--json']);
    assert.equal(record(record(JSON.parse(stderr))['error'])['reason'], 'USAGE');
  });

  it('Ctrl-C during an attach exits with 130 and says that the daemon goes on', async () => {
    await using api = await FakeApi.start();
    const called = Promise.withResolvers<undefined>();
    api.answer('Volumes.Attach', () => {
      called.resolve(undefined);
      return new Promise(() => undefined);
    });
    const child = start(['--socket', api.socketPath, 'volume', 'attach', 'sb1', 'v', '--raw', 'x']);
    await called.promise;
    child.kill('SIGINT');
    const { exitCode, stderr } = await child;
    assert.equal(exitCode, 130);
    assert.match(stderr, /the daemon finishes what it began \(`qshim volume get sb1 v`/);
  });
});
