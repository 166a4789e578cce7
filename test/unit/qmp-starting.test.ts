import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { FakeQmp } from '../support/fake-qmp.ts';

/** A socket that is bound and on which nobody listens: what a QEMU that is starting has for a moment. */
async function deafSocket(): Promise<AsyncDisposable & { readonly directory: string; readonly path: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'qshim-deaf-'));
  const path = join(directory, 'qmp.sock');
  const script =
    'require("node:net").createServer().listen(process.argv[1], () => process.kill(process.pid, "SIGKILL"))';
  const { promise, resolve } = Promise.withResolvers<void>();
  execFile(process.execPath, ['-e', script, path], () => resolve());
  await promise;
  return { directory, path, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}

describe('qmp while qemu starts', () => {
  it('a refusal is tried again until somebody listens', async () => {
    await using deaf = await deafSocket();
    const connecting = QmpClient.connect({ path: deaf.path, log: silentLogger(), startingUp: true });
    await sleep(50); // Some attempts are refused meanwhile.
    const listening = join(deaf.directory, 'listening.sock');
    await using _fake = await FakeQmp.listen({ path: listening });
    await rename(listening, deaf.path);
    await using qmp = await connecting;
    assert.equal(qmp.state, 'ready');
  });

  it('the limit and the signal end it', async () => {
    await using deaf = await deafSocket();
    const options = { path: deaf.path, log: silentLogger(), startingUp: true };
    await assert.rejects(QmpClient.connect({ ...options, handshakeTimeoutMs: 50 }), { reason: 'QMP_CONNECT_FAILED' });
    const reason = new Error('enough');
    const controller = new AbortController();
    const connecting = QmpClient.connect({ ...options, signal: controller.signal });
    await sleep(20);
    controller.abort(reason);
    await assert.rejects(connecting, reason);
  });

  it('without it, a refusal is an answer', async () => {
    await using deaf = await deafSocket();
    await assert.rejects(QmpClient.connect({ path: deaf.path, log: silentLogger() }), { reason: 'QMP_CONNECT_FAILED' });
  });
});
