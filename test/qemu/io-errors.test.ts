import assert from 'node:assert/strict';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();
const MIB = 1024 * 1024;

await describe('I/O errors of the host', { skip }, async () => {
  await it('pauses the VM when the host has no space, says so, and lets it go on once there is room', async (context) => {
    await using daemon = await TestDaemon.start({ config: { no_space_free_bytes: 8 * MIB, no_space_retry_ms: 100 } });
    const small = join(daemon.volumeDir, 'small');
    await mkdir(small);
    const mounted = await execa('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'tmpfs', small], { reject: false });
    if (mounted.exitCode !== 0) {
      context.skip(`no tmpfs can be mounted: ${mounted.stderr}`);
      return;
    }
    try {
      await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
      // 16 MiB of ballast and a sparse volume that cannot become as long as it says.
      await execa('dd', ['if=/dev/zero', `of=${small}/ballast`, 'bs=1M', 'count=16']);
      const path = await daemon.rawFile('small/volume.raw', 16 * MIB);
      const volume = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec: { rawFile: { path } } });
      assert.equal(volume.spec?.writeErrors, 'IO_ERROR_POLICY_STOP_ON_ENOSPC');
      assert.equal(volume.health?.failing, false);
      const write = daemon.client.guest(
        'vm',
        `dd if=/dev/urandom of=/tmp/r bs=1M count=12 2>/dev/null; dd if=/tmp/r of=${volume.guestDevice} bs=1M conv=fsync 2>/dev/null && sha256sum < /tmp/r`,
      );
      await until('paused', async () => (await daemon.client.getSandbox('vm')).runState === 'io-error');
      const failing: Volume__Output = await daemon.client.getVolume('vm', 'v');
      assert.equal(failing.state, 'VOLUME_STATE_ATTACHED');
      assert.equal(failing.health?.failing, true);
      assert.equal(failing.health.lastNoSpace, true);
      assert.equal(failing.health.lastOperation, 'write');
      assert.equal(failing.health.lastAction, 'stop');
      await rm(`${small}/ballast`);
      const sum = (await write).split(' ', 1)[0];
      await until('running', async () => (await daemon.client.getSandbox('vm')).runState === 'running');
      const well = await daemon.client.getVolume('vm', 'v');
      assert.equal(well.health?.failing, false);
      assert.ok(well.health.errors >= 1);
      await daemon.client.detach({ sandboxId: 'vm', volumeId: 'v' });
      const onHost = await execa('sh', ['-c', `head -c ${12 * MIB} '${path}' | sha256sum`]);
      assert.equal(onHost.stdout.split(' ', 1)[0], sum, 'not a byte was lost over the pause');
      await daemon.client.deleteSandbox('vm');
    } finally {
      await execa('umount', [small]);
    }
  });

  await it('reports other errors to the guest, and keeps them as the volume’s health', async (context) => {
    await using daemon = await TestDaemon.start({ config: { allowed_roots: '/dev' } });
    const file = await daemon.rawFile('cut.raw', 16 * MIB);
    const loop = await execa('losetup', ['--find', '--show', '--direct-io=on', file], { reject: false });
    if (loop.exitCode !== 0) {
      context.skip(`no loop device: ${loop.stderr}`);
      return;
    }
    const path = loop.stdout.trim();
    try {
      await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
      const spec = { blockDevice: { path }, cache: 'CACHE_MODE_NONE' } as const;
      const volume = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec });
      assert.equal(volume.spec?.readErrors, 'IO_ERROR_POLICY_REPORT');
      // The file below the device shrinks: reads beyond its new end fail.
      await execa('truncate', ['-s', '1M', file]);
      const read = await daemon.client.exec('vm', `dd if=${volume.guestDevice} of=/dev/null bs=1M skip=8 iflag=direct`);
      assert.notEqual(read.exitCode, 0);
      await until('health', async () => (await daemon.client.getVolume('vm', 'v')).health?.failing === true);
      const failing = await daemon.client.getVolume('vm', 'v');
      assert.equal(failing.state, 'VOLUME_STATE_ATTACHED');
      assert.equal(failing.health?.lastOperation, 'read');
      assert.equal(failing.health.lastAction, 'report');
      assert.equal((await daemon.client.getSandbox('vm')).runState, 'running');
      const removed = await daemon.client.detach({ sandboxId: 'vm', volumeId: 'v' });
      assert.equal(removed.state, 'VOLUME_STATE_REMOVED');
    } finally {
      await execa('losetup', ['--detach', path]);
    }
  });

  await it('a guest that panics ends its sandbox, with the cause', async () => {
    await using daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
    const path = await daemon.rawFile('p.raw');
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec: { rawFile: { path } } });
    await until('the panic driver', async () => {
      const seen = await daemon.client.exec('vm', 'grep -q pvpanic /proc/modules');
      return seen.exitCode === 0;
    });
    await daemon.client.exec('vm', '(sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &');
    await until('stopped', async () => (await daemon.client.getSandbox('vm')).state === 'SANDBOX_STATE_STOPPED');
    assert.equal((await daemon.client.getSandbox('vm')).cause?.reason, 'GUEST_PANICKED');
    const volume = await daemon.client.getVolume('vm', 'v');
    assert.equal(volume.state, 'VOLUME_STATE_REMOVED');
    assert.equal(volume.cause?.reason, 'VM_GONE');
  });
});
