import assert from 'node:assert/strict';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureCommands, isRoot, missingCommands, type Command } from '../../scripts/lib/packages.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { NbdServerProcess } from '../support/nbd.ts';
import { until } from '../support/until.ts';

/** A confined QEMU reaches NBD servers by a relay, which lives as long as the volume, whatever becomes of daemons. */

const TOOLS: readonly Command[] = ['qemu-nbd'];
const missing = isRoot() ? [] : missingCommands(TOOLS);
const skip =
  (!isRoot() && 'only root gives QEMUs users of their own') ||
  (await realVmSkipReason()) ||
  (missing.length > 0 && `not installed: ${missing.join(', ')}`);
const MIB = 1024 * 1024;
const CONFIG = { confine: 'degraded' };

/** Pids of the relays whose sockets lie below a directory. */
async function relays(directory: string): Promise<readonly number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
      const isRelay = args.some((arg) => arg.endsWith('/nbd-relay-main.ts'));
      return isRelay && args.some((arg) => arg.startsWith(`${directory}/`)) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}

await describe('the relay between a confined QEMU and an NBD server', { skip }, async () => {
  await ensureCommands(TOOLS);

  await it('outlives its daemon, with the guest writing, is adopted, and ends with its volume', async () => {
    const first = await TestDaemon.start({ config: CONFIG });
    const { stateDir, confinement } = await first.client.createSandbox({ sandboxId: 'vm' });
    const path = join(first.volumeDir, 'disk.sock');
    const file = await first.rawFile('disk.raw', 32 * MIB);
    await using _server = await NbdServerProcess.qemuNbd({ path }, file, 'disk', ['-t']);
    const spec = { nbdExport: { socket: path, exportName: 'disk' } };
    const { guestDevice } = await first.client.attach({ sandboxId: 'vm', volumeId: 'n', spec });
    const started = await relays(stateDir);
    assert.equal(started.length, 1);
    const socket = await stat(join(stateDir, 'nbd-1'));
    assert.deepEqual([socket.uid, socket.mode & 0o777], [confinement?.uid, 0o600], 'nobody else may connect');

    // A write error would end the loop: there is no reconnect delay.
    const loop = `i=0; while [ ! -e /tmp/stop ] && dd if=/dev/zero of=${guestDevice} bs=4k count=8 oflag=direct 2>/tmp/said; do i=$((i+1)); echo $i > /tmp/count; done; touch /tmp/stopped`;
    await first.client.guest('vm', `(${loop}) >/dev/null 2>&1 &`);
    await until('it writes', async () => (await first.client.guest('vm', 'cat /tmp/count 2>/dev/null || true')) !== '');
    await first.kill('SIGKILL');
    await sleep(1000);
    assert.deepEqual(await relays(stateDir), started);

    await using second = await TestDaemon.start({ directory: first.directory, config: CONFIG });
    await until('the agent', async () => (await second.client.getSandbox('vm')).agentReady);
    const count = async (): Promise<number> => Number(await second.client.guest('vm', 'cat /tmp/count'));
    const [before, health] = [await count(), (await second.client.getVolume('vm', 'n')).health];
    await until('it goes on writing', async () => (await count()) > before);
    assert.deepEqual([health?.failing, health?.errors], [false, 0]);
    assert.deepEqual(await relays(stateDir), started);
    await second.client.guest('vm', 'touch /tmp/stop; until [ -e /tmp/stopped ]; do sleep 0.1; done');
    await second.client.detach({ sandboxId: 'vm', volumeId: 'n' });
    assert.deepEqual(await relays(stateDir), []);
    assert.ok(!(await readdir(stateDir)).some((name) => name.startsWith('nbd-')));
  });

  await it('is started again when it is killed: a guest that is told to wait sees no error', async () => {
    await using daemon = await TestDaemon.start({ config: CONFIG });
    const { stateDir } = await daemon.client.createSandbox({ sandboxId: 'vm' });
    const path = join(daemon.volumeDir, 'disk.sock');
    const file = await daemon.rawFile('disk.raw', 32 * MIB);
    await using _server = await NbdServerProcess.qemuNbd({ path }, file, 'disk', ['-t', '-e', '4']);
    const spec = { nbdExport: { socket: path, exportName: 'disk', reconnectDelayS: 600 } };
    const { guestDevice } = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'n', spec });
    const [killed = 0] = await relays(stateDir);
    process.kill(killed, 'SIGKILL');
    await daemon.client.guest('vm', `echo kept | dd of=${guestDevice} bs=4k conv=sync oflag=direct 2>/dev/null`);
    const [again] = await relays(stateDir);
    assert.notEqual(again, undefined);
    assert.notEqual(again, killed);
    assert.ok((await readFile(file)).includes('kept'));
    assert.equal((await daemon.client.getVolume('vm', 'n')).health?.errors, 0);
  });

  await it('ends with its QEMU, also without a daemon', async () => {
    const first = await TestDaemon.start({ config: CONFIG });
    const { stateDir, qemuPid } = await first.client.createSandbox({ sandboxId: 'vm' });
    const path = join(first.volumeDir, 'disk.sock');
    await using _server = await NbdServerProcess.qemuNbd({ path }, await first.rawFile('disk.raw'), 'disk', ['-t']);
    const spec = { nbdExport: { socket: path, exportName: 'disk' } };
    await first.client.attach({ sandboxId: 'vm', volumeId: 'n', spec });
    await first.kill('SIGKILL');
    process.kill(qemuPid, 'SIGKILL');
    await until('it has ended', async () => (await relays(stateDir)).length === 0);
    await using second = await TestDaemon.start({ directory: first.directory, config: CONFIG });
    assert.equal((await second.client.getVolume('vm', 'n')).state, 'VOLUME_STATE_REMOVED');
    // And under a daemon with the sandbox's own end.
    const { stateDir: again } = await second.client.startSandbox('vm');
    await second.client.attach({ sandboxId: 'vm', volumeId: 'n', spec });
    assert.equal((await relays(again)).length, 1);
    await second.client.stopSandbox({ sandboxId: 'vm', force: true });
    assert.deepEqual(await relays(again), []);
  });
});
