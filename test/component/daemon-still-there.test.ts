import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeScripts } from '../support/fake-scripts.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';

/**
 * The real daemon against a scripted QEMU and guest: evidence is what was looked at in the operation that answers with
 * it, not what an earlier one saw.
 */

const MIB = 1024 * 1024;
const PLAIN = {};
const SEALED = { encryption: { guestLuks2: { ephemeralKey: {}, mode: 'LUKS_MODE_CREATE' as const } } };

interface Mounted {
  readonly vm: FakeVm;
  readonly scripts: FakeScripts;
  readonly attach: () => Promise<Volume__Output>;
  readonly resize: () => Promise<unknown>;
  readonly evidence: () => Promise<readonly string[]>;
}

async function mounted(rig: FakeVmRig, more: object): Promise<Mounted> {
  const vm = await rig.sandbox();
  const scripts = new FakeScripts(vm);
  const path = await rig.daemon.rawFile('a', MIB);
  const spec = { rawFile: { path }, mount: { fsType: 'ext4', mountPoint: '/da ta' }, ...more };
  const attach = () => rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
  await attach();
  const request = { sandboxId: 'one', volumeId: 'a', sizeBytes: 2 * MIB };
  return {
    ...{ vm, scripts, attach },
    resize: () => call((done) => rig.client.volumes.resize(request, done)),
    evidence: async () => (await rig.volume('a')).evidence.filter((each) => each.startsWith('guest-')),
  };
}

describe('what is said of a mount was seen just now', { timeout: 120_000 }, () => {
  for (const [what, more, script, left] of [
    ['plain', PLAIN, 'resize', ['guest-agent']],
    ['guest_luks2', SEALED, 'resize-luks', ['guest-agent', 'guest-luks']],
  ] as const) {
    it(`a resize whose file system is not mounted any more has not grown it, and says so (${what})`, async () => {
      await using rig = await FakeVmRig.start();
      const { scripts, attach, resize, evidence } = await mounted(rig, more);
      await resize();
      scripts.unmountAll();
      scripts.print(script, ['device=/dev/vda', 'error=VOLUME_NOT_MOUNTED']);
      const seen = await refusal(resize());
      assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'VOLUME_NOT_MOUNTED']);
      assert.deepEqual(await evidence(), left);
      assert.equal((await refusal(attach())).reason, 'VOLUME_NOT_MOUNTED');
      assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
      // What is not mounted is not unmounted; whether somebody else uses the disk is asked all the same.
      assert.equal(scripts.ran.at(-1), what === 'plain' ? 'holders' : 'close');
    });

    it(`a repeated Attach looks, and is no success when the guest has unmounted it (${what})`, async () => {
      await using rig = await FakeVmRig.start();
      const { scripts, attach, evidence } = await mounted(rig, more);
      assert.equal((await attach()).generation, 1);
      scripts.unmountAll();
      const seen = await refusal(attach());
      assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'VOLUME_NOT_MOUNTED']);
      assert.deepEqual(await evidence(), left);
      assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
    });

    it(`a daemon that comes back looks: what the guest has unmounted meanwhile is no evidence (${what})`, async () => {
      await using rig = await FakeVmRig.start();
      const { scripts, evidence } = await mounted(rig, more);
      const before = await evidence();
      const looks = scripts.ran.length;
      await rig.restart('SIGKILL');
      await until('the daemon has looked', () => (scripts.ran.length > looks ? true : undefined));
      assert.deepEqual(await evidence(), before);
      await rig.restartAfter('SIGKILL', () => {
        scripts.unmountAll();
        return Promise.resolve();
      });
      await until('the evidence is gone', async () => ((await evidence()).includes('guest-mount') ? undefined : true));
      assert.deepEqual(await evidence(), left);
    });
  }

  it('an encryption that the guest has closed is no evidence after a resize that has found it so', async () => {
    await using rig = await FakeVmRig.start();
    const { scripts, attach, resize, evidence } = await mounted(rig, SEALED);
    scripts.print('resize-luks', ['error=LUKS_NOT_OPEN']);
    assert.equal((await refusal(resize())).reason, 'LUKS_NOT_OPEN');
    assert.deepEqual(await evidence(), ['guest-agent']);
    assert.equal((await refusal(attach())).reason, 'LUKS_NOT_OPEN');
  });

  it('a guest that does not say whether it is mounted: the repeat has no answer, and all that was known stays', async () => {
    await using rig = await FakeVmRig.start();
    const { vm, scripts, attach, evidence } = await mounted(rig, PLAIN);
    const before = await evidence();
    scripts.print('holders', ['looked=']);
    const seen = await refusal(attach());
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'GUEST_NOT_ASKED']);
    assert.deepEqual(await evidence(), before);
    scripts.print('holders', undefined);
    assert.equal((await attach()).generation, 1);
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
  });

  it('a reset that no daemon saw, of a plain volume: neither evidence nor a name outlives it', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const { evidence, guestDevice } = await rig.attach('a');
    assert.deepEqual([evidence, guestDevice], [['virtio-status', 'guest-agent'], '/dev/vda']);
    await rig.restartAfter('SIGKILL', () => {
      vm.model.reboot('vol-1-a');
      return Promise.resolve();
    });
    const again = await rig.attach('a');
    assert.deepEqual([again.state, again.evidence, again.guestDevice], ['VOLUME_STATE_ATTACHED', [], '']);
    vm.model.driverLive('vol-1-a');
    await until('it is looked at anew', async () => {
      const volume = await rig.volume('a');
      return volume.evidence.includes('virtio-status') && volume.guestDevice === '/dev/vda' ? true : undefined;
    });
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
  });
});
