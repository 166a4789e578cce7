import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refusal } from '../support/errors.ts';
import { until } from '../support/until.ts';
import { FakeScripts } from '../support/fake-scripts.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';

/**
 * The real daemon against a scripted QEMU and guest: mounts and encryption that qshim made are undone before a disk
 * leaves.
 */

describe('detach: what qshim made in the guest', { timeout: 120_000 }, () => {
  it('an encryption without a mount is not closed before the intent is on disk', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const scripts = new FakeScripts(vm);
    const path = await rig.daemon.rawFile('a', 1024 * 1024);
    const spec = {
      rawFile: { path },
      encryption: { guestLuks2: { ephemeralKey: {}, mode: 'LUKS_MODE_CREATE' as const } },
    };
    await rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
    {
      await using _blocked = await rig.blockJournal();
      assert.equal((await refusal(rig.detach('a'))).reason, 'JOURNAL_WRITE_FAILED');
      const kept = await rig.volume('a');
      assert.deepEqual([kept.state, kept.encryption?.mappedDevice], ['VOLUME_STATE_ATTACHED', '/dev/mapper/qshim-a']);
      assert.deepEqual(scripts.ran, ['open'], 'nothing was closed');
    }
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(scripts.ran, ['open', 'close']);
  });
});

describe('detach: refused half-way', { timeout: 120_000 }, () => {
  const BUSY = 'busy=7 cwd sh';
  const ALL = ['virtio-status', 'guest-agent', 'guest-mount'];
  const mount = { fsType: 'ext4', mountPoint: '/da ta' };

  interface Mounted {
    readonly vm: FakeVm;
    readonly scripts: FakeScripts;
    readonly attach: () => Promise<Volume__Output>;
  }

  async function mounted(rig: FakeVmRig, more: VolumeSpec = {}): Promise<Mounted> {
    const vm = await rig.sandbox();
    const scripts = new FakeScripts(vm);
    const path = await rig.daemon.rawFile('a', 1024 * 1024);
    const spec = { rawFile: { path }, mount, ...more };
    const attach = () => rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
    await attach();
    return { vm, scripts, attach };
  }

  it('the mount is still there: nothing has changed', async () => {
    await using rig = await FakeVmRig.start();
    const { scripts, attach } = await mounted(rig);
    scripts.print('unmount', [BUSY, 'left=/da\\040ta', 'left=/other', 'unmounted=0']);
    const seen = await refusal(rig.detach('a'));
    assert.deepEqual([seen.reason, seen.metadata['mounted'], seen.metadata['pids']], ['VOLUME_BUSY', 'true', '7']);
    const kept = await rig.volume('a');
    assert.deepEqual([kept.state, kept.evidence], ['VOLUME_STATE_ATTACHED', ALL]);
    assert.equal((await attach()).generation, kept.generation);
  });

  it('the mount is gone: no word of it any more, and a repeated Attach is no success', async () => {
    await using rig = await FakeVmRig.start();
    const { scripts, attach } = await mounted(rig);
    scripts.print('unmount', [BUSY, 'left=/other', 'unmounted=0']);
    const seen = await refusal(rig.detach('a'));
    assert.deepEqual([seen.reason, seen.metadata['mounted']], ['VOLUME_BUSY', 'false']);
    assert.match(seen.message, /no longer mounted at \/da ta: sh \(pid 7, cwd\)/);
    for (const restarted of [false, true]) {
      if (restarted) await rig.restart('SIGTERM');
      const kept = await rig.volume('a');
      assert.deepEqual([kept.state, kept.evidence], ['VOLUME_STATE_ATTACHED', ['virtio-status', 'guest-agent']]);
      assert.match(kept.cause?.message ?? '', /no longer mounted/);
      const again = await refusal(attach());
      assert.deepEqual([again.code, again.reason], ['FAILED_PRECONDITION', 'VOLUME_NOT_MOUNTED']);
    }
    scripts.print('unmount', undefined);
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual([(await attach()).generation, (await rig.volume('a')).evidence], [2, ALL]);
  });

  it('a guest that is still writing back is asked again until it has ended: what a caller heard stays true', async () => {
    await using rig = await FakeVmRig.start({ mount_timeout_ms: 500 });
    const { vm, scripts } = await mounted(rig);
    const usual = vm.agent.answer;
    vm.agent.answer = (request) => (request.execute === 'guest-exec-status' ? { exited: false } : usual(request));
    const seen = await refusal(rig.detach('a', { timeoutMs: 1000 }));
    assert.equal(seen.reason, 'GUEST_HOLDS_VOLUME');
    assert.match(seen.message, /stays DETACHING and the daemon goes on asking/);
    await until('it was asked again', () => scripts.ran.filter((name) => name === 'unmount').length > 2);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    vm.agent.answer = usual;
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
  });

  it('a guest that was never asked has the mount as before', async () => {
    await using rig = await FakeVmRig.start({ mount_timeout_ms: 1000 });
    const { vm, attach } = await mounted(rig);
    // A new connection is asked for a sign of life before anything else.
    vm.agent.stop();
    vm.agent.hangUp();
    const seen = await refusal(rig.detach('a', { timeoutMs: 1000 }));
    assert.deepEqual([seen.reason, seen.metadata['cause']], ['GUEST_NOT_ASKED', 'GUEST_AGENT_TIMEOUT']);
    const kept = await rig.volume('a');
    assert.deepEqual([kept.state, kept.evidence], ['VOLUME_STATE_ATTACHED', ALL]);
    vm.agent.start();
    assert.equal((await attach()).generation, kept.generation);
  });

  it('encryption: what is mounted and what is open are told apart', async () => {
    await using rig = await FakeVmRig.start();
    const guestLuks2 = { ephemeralKey: {}, mode: 'LUKS_MODE_CREATE' as const };
    const { scripts, attach } = await mounted(rig, { encryption: { guestLuks2 } });
    const seen: unknown[] = [];
    for (const lines of [['left=/da\\040ta', 'open=1'], ['open=1'], ['open=0']]) {
      scripts.print('close', [BUSY, ...lines, 'released=0', 'closed=0']);
      await refusal(rig.detach('a'));
      const { evidence } = await rig.volume('a');
      const again = await attach().then(
        () => 'OK',
        async (error: unknown) => (await refusal(Promise.reject(error as Error))).reason,
      );
      seen.push([evidence.slice(2), again]);
    }
    assert.deepEqual(seen, [
      [['guest-luks', 'guest-mount'], 'OK'],
      [['guest-luks'], 'VOLUME_NOT_MOUNTED'],
      [[], 'LUKS_NOT_OPEN'],
    ]);
  });
});
