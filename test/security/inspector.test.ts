import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { TestDaemon } from '../support/daemon.ts';
import { onSignal, pidOf, tcpListeners } from '../support/listening.ts';
import { QSHIM } from '../support/run-qshim.ts';
import { until } from '../support/until.ts';

const ROOT = join(import.meta.dirname, '../..');
/** Long enough for Node to open its inspector, on a tree where it does. */
const OPENS_MS = 1000;
/** As an operator's mistake, or another program's setting, would have it. */
const ASKED = { NODE_OPTIONS: '--inspect=127.0.0.1:0' };

/** Asks a process for its inspector, the way that Node offers to whoever may signal it. */
async function assertNoInspector(pid: number): Promise<void> {
  // Before Node has done either, the signal ends the process.
  const { handled } = await until('Node has begun', async () => {
    const seen = await onSignal(pid, constants.signals.SIGUSR1);
    return (seen.handled || seen.blocked) && seen;
  });
  assert.deepEqual(await tcpListeners(pid), [], 'asked for by NODE_OPTIONS');
  assert.equal(handled, false, 'SIGUSR1 has a handler');
  process.kill(pid, 'SIGUSR1');
  await sleep(OPENS_MS);
  assert.deepEqual(await tcpListeners(pid), [], 'asked for by SIGUSR1');
}

describe('no process of qshim opens an inspector', { timeout: 120_000 }, () => {
  it('the daemon, its relay, and the command that watches: by SIGUSR1 or NODE_OPTIONS', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-t-'));
    const containerd_socket = join(directory, 'run/shim.sock');
    await using daemon = await TestDaemon.start({
      directory,
      launcher: true,
      config: { containerd_socket },
      environment: ASKED,
    });
    const { pid } = daemon.child;
    assert.ok(pid !== undefined);
    await assertNoInspector(pid);
    // It ends with its daemon.
    const relay = await pidOf('relay-main.ts', containerd_socket);
    await assertNoInspector(relay);
    const watch = execa(QSHIM, ['watch'], { reject: false, env: { ...ASKED, QSHIM_SOCKET: daemon.socket } });
    try {
      await until('the command is Node', () =>
        pidOf('cli-main.ts', 'watch').then(
          (found) => found === watch.pid,
          () => false,
        ),
      );
      await assertNoInspector(watch.pid ?? 0);
      assert.equal(watch.exitCode, null);
    } finally {
      watch.kill('SIGKILL');
      await watch;
    }
    assert.deepEqual(await daemon.client.listSandboxes(), [], 'the daemon serves on');
  });

  it('nor does what containerd runs', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-t-'));
    const socket = join(directory, 'shim.sock');
    // Takes connections and says nothing: the shim waits.
    const server = createServer().listen(socket);
    await once(server, 'listening');
    const connected = once(server, 'connection');
    const shim = execa(join(ROOT, 'bin/containerd-shim-qshim-v2'), ['-id', 'x', 'delete'], {
      reject: false,
      env: { ...ASKED, QSHIM_CONTAINERD_SOCKET: socket },
    });
    try {
      await connected;
      await assertNoInspector(shim.pid ?? 0);
    } finally {
      shim.kill('SIGKILL');
      await shim;
      server.close();
      await rm(directory, { recursive: true });
    }
  });
});
