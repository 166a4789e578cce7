import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createConnection, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { restoreState, saveState, type MigrateOptions } from '../../src/template/migrate.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { FakeQmp, QmpFailure } from '../support/fake-qmp.ts';

const STATE = Buffer.alloc(300_000, 'state');

interface Rig extends AsyncDisposable {
  readonly fake: FakeQmp;
  readonly qmp: QmpClient;
  readonly options: MigrateOptions;
  readonly directory: string;
}

async function rig(timeoutMs = 10_000): Promise<Rig> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-migrate-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const fake = stack.use(await FakeQmp.listen());
  const qmp = stack.use(await QmpClient.connect({ path: fake.path, log: silentLogger() }));
  const options = { stateFile: join(directory, 'file'), socketPath: join(directory, 'socket'), timeoutMs };
  const owned = stack.move();
  return { fake, qmp, options, directory, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const names = ({ fake }: Rig): string[] => fake.received.map(({ name }) => name).slice(1);

/** QEMU's side of `migrate`: connects, writes, and says how it went. */
function sends(at: Rig, status: 'completed' | 'failed'): void {
  at.fake.on('migrate', () => {
    at.fake.emit('MIGRATION', { status: 'setup' });
    const socket = createConnection(at.options.socketPath);
    socket.on('error', () => undefined); // The saving side may have given up.
    socket.end(STATE, () => at.fake.emit('MIGRATION', { status }));
    return {};
  });
}

describe('saving a state', () => {
  it('the VM is stopped first; all that QEMU writes is in the file', async () => {
    await using at = await rig();
    sends(at, 'completed');
    assert.equal(await saveState(at.qmp, at.options), STATE.length);
    assert.deepEqual(await readFile(at.options.stateFile), STATE);
    assert.deepEqual(names(at), ['stop', 'migrate-set-capabilities', 'migrate']);
    assert.deepEqual(await readdir(at.directory), ['file'], 'the socket has gone');
  });

  it('a failure that QEMU tells, a refusal and a silence are errors, and nothing goes on listening', async () => {
    await using failing = await rig();
    sends(failing, 'failed');
    const reason = 'TEMPLATE_SAVE_FAILED';
    await assert.rejects(saveState(failing.qmp, failing.options), { code: 'FAILED_PRECONDITION', reason });
    await using refusing = await rig();
    refusing.fake.on('migrate', () => new QmpFailure('no'));
    await assert.rejects(saveState(refusing.qmp, refusing.options), { code: 'FAILED_PRECONDITION', reason });
    await using silent = await rig(30);
    await assert.rejects(saveState(silent.qmp, silent.options), {
      code: 'DEADLINE_EXCEEDED',
      reason: 'TEMPLATE_TIMEOUT',
    });
    for (const at of [refusing, silent]) assert.deepEqual(await readdir(at.directory), []);
  });
});

describe('restoring a state', () => {
  /** QEMU's side of `migrate-incoming`: listens, reads `bytes` and closes. */
  async function takes(at: Rig, bytes: number, then: () => void): Promise<AsyncDisposable> {
    const server = createServer((socket) => {
      socket.on('error', () => undefined); // The other side may hang up first.
      let left = bytes;
      socket.on('data', (chunk: Buffer) => {
        left -= chunk.length;
        if (left > 0) return;
        socket.destroy();
        then();
      });
    });
    server.listen(at.options.socketPath);
    await once(server, 'listening');
    return server;
  }

  it('the VM goes on once QEMU has said that it is complete, not before', async () => {
    await using at = await rig();
    await writeFile(at.options.stateFile, STATE);
    const received = Promise.withResolvers<Buffer>();
    await using server = createServer((socket) => {
      void buffer(socket).then((bytes) => {
        assert.ok(!names(at).includes('cont'));
        received.resolve(bytes);
        at.fake.emit('MIGRATION', { status: 'completed' });
      });
    });
    server.listen(at.options.socketPath);
    await once(server, 'listening');
    await restoreState(at.qmp, at.options);
    assert.deepEqual(await received.promise, STATE);
    assert.deepEqual(names(at), ['migrate-set-capabilities', 'migrate-incoming', 'cont']);
  });

  it('QEMU that hangs up when it has what it needs is no failure', async () => {
    await using at = await rig();
    await writeFile(at.options.stateFile, STATE);
    await using _server = await takes(at, 1000, () => at.fake.emit('MIGRATION', { status: 'completed' }));
    await restoreState(at.qmp, at.options);
    assert.ok(names(at).includes('cont'));
  });

  it('QEMU that says so, or ends: it failed, and the VM is not let run', async () => {
    for (const end of [(at: Rig) => at.fake.emit('MIGRATION', { status: 'failed' }), (at: Rig) => at.fake.drop()]) {
      await using at = await rig();
      await writeFile(at.options.stateFile, STATE);
      await using _server = await takes(at, 1000, () => end(at));
      await assert.rejects(restoreState(at.qmp, at.options), {
        code: 'FAILED_PRECONDITION',
        reason: 'TEMPLATE_RESTORE_FAILED',
      });
      assert.ok(!names(at).includes('cont'));
    }
  });

  it('silence ends at the limit', async () => {
    await using at = await rig(30);
    await writeFile(at.options.stateFile, STATE);
    await using _server = await takes(at, STATE.length, () => undefined);
    await assert.rejects(restoreState(at.qmp, at.options), { code: 'DEADLINE_EXCEEDED', reason: 'TEMPLATE_TIMEOUT' });
  });
});
