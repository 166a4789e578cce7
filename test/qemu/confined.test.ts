import assert from 'node:assert/strict';
import { stat } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { identify } from '../../src/qemu/process.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { openFiles } from '../support/leaks.ts';
import { ownNamespaces } from '../support/process-facts.ts';
import { until } from '../support/until.ts';

const skip = (process.getuid?.() !== 0 && 'only root gives QEMUs users of their own') || (await realVmSkipReason());
const MIB = 1024 * 1024;

describe('a confined QEMU', { skip }, () => {
  it('takes volumes, runs commands with streams, outlives its daemon, is adopted and stopped', async () => {
    const config = { confine: 'degraded' };
    const first = await TestDaemon.start({ config });
    const created = await first.client.createSandbox({ sandboxId: 'vm' });
    assert.notEqual(created.confinement?.level, 'CONFINEMENT_LEVEL_OFF');
    assert.deepEqual(await ownNamespaces(created.qemuPid), ['mnt', 'pid', 'ipc', 'uts', 'net']);
    // Its directory is the daemon's again: QEMU can enter it, and neither add nor replace a file.
    const { uid, mode } = await stat(created.stateDir);
    assert.deepEqual([uid, mode & 0o777], [process.getuid?.(), 0o711]);

    const path = await first.rawFile('a.raw', 32 * MIB);
    const mount = { fsType: 'ext4', mountPoint: '/mnt/a', options: [], format: 'FORMAT_IF_EMPTY' as const };
    await first.client.attach({ sandboxId: 'vm', volumeId: 'a', spec: { rawFile: { path }, mount } });
    await first.client.guest('vm', 'echo kept > /mnt/a/file; sync');
    await first.kill('SIGKILL');

    await using second = await TestDaemon.start({ directory: first.directory, config });
    await until('the agent', async () => (await second.client.getSandbox('vm')).agentReady);
    const adopted = await second.client.getSandbox('vm');
    assert.equal(adopted.qemuPid, created.qemuPid);
    assert.deepEqual(adopted.confinement, created.confinement);
    assert.equal(await second.client.guest('vm', 'cat /mnt/a/file'), 'kept\n');
    await second.client.detach({ sandboxId: 'vm', volumeId: 'a' });
    const stopped = await second.client.stopSandbox({ sandboxId: 'vm' });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
    // bwrap, whose daemon is gone, may not have waited for it yet.
    assert.equal(await identify(created.qemuPid), undefined);
    // Started again it has another user, and the same directory.
    const again = await second.client.startSandbox('vm');
    assert.notEqual(again.confinement?.uid, created.confinement?.uid);
    assert.equal(again.stateDir, created.stateDir);
  });

  it('opens an encrypted image with a key that it has no way back to', async () => {
    await using daemon = await TestDaemon.start({ config: { confine: 'degraded' } });
    const { qemuPid } = await daemon.client.createSandbox({ sandboxId: 'vm' });
    const path = await daemon.rawFile('a.raw', 32 * MIB);
    const key = { file: await daemon.keyFile('key', Buffer.from('a key of some length')) };
    const encryption = { hostLuks: { key, format: 'FORMAT_IF_EMPTY' as const, iterationMs: 20 } };
    const before = await openFiles(qemuPid);
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'a', spec: { rawFile: { path }, encryption } });
    // Only the image has been added to what it has open: a confined QEMU could open anything else of that once more.
    const added = (await openFiles(qemuPid)).filter(
      (file) => !before.includes(file) && !file.startsWith('anon_inode:'),
    );
    assert.deepEqual([...new Set(added)], [path]);
    await daemon.client.guest('vm', 'echo kept | dd of=/dev/vda conv=sync,fsync 2>/dev/null');
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'a' });
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'a', spec: { rawFile: { path }, encryption } });
    assert.match(await daemon.client.guest('vm', 'dd if=/dev/vda bs=512 count=1 2>/dev/null'), /^kept\n/);
  });

  it('by default; where bubblewrap is missing QEMU runs without, and log and sandbox say why', async () => {
    {
      await using daemon = await TestDaemon.start();
      const { qemuPid } = await daemon.client.createSandbox({ sandboxId: 'vm' });
      assert.ok((await ownNamespaces(qemuPid)).includes('net'));
    }
    const hide = 'mount --bind /dev/null /usr/bin/bwrap && exec "$@"';
    await using daemon = await TestDaemon.start({ prefix: ['unshare', '-m', 'sh', '-c', hide, 'sh'] });
    const { confinement, qemuPid } = await daemon.client.createSandbox({ sandboxId: 'vm' });
    // The daemon has a mount namespace of its own in this test.
    assert.deepEqual(await ownNamespaces(qemuPid), ['mnt']);
    assert.equal(confinement?.level, 'CONFINEMENT_LEVEL_DEGRADED');
    const why = confinement.missing.find(({ part }) => part === 'namespaces')?.reason ?? '';
    assert.match(why, /package bubblewrap/);
    const warning = (await daemon.log())
      .split('\n')
      .find((line) => line.includes('"qemu is confined with walls missing"'));
    assert.match(warning ?? '', /"level":"warn".*package bubblewrap/);
    const path = await daemon.rawFile('a.raw');
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'a', spec: { rawFile: { path } } });
  });
});
