import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sleep } from '../../src/base/deadline.ts';
import { refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { QmpFailure } from '../support/fake-qmp.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** The real daemon against a scripted QEMU: when a guest is asked to let go, and when a slot is used again. */

const SLOW = { unplug_retry_ms: 600_000, unplug_retry_max_ms: 600_000 };

/** "ID@ADDR" of each device that was plugged, and ids of those that were asked for, in order. */
function plugged(vm: FakeVm): readonly string[] {
  return vm.qmp.receivedOf('device_add').map(({ arguments: args }) => `${String(args['id'])}@${String(args['addr'])}`);
}
function asked(vm: FakeVm): readonly string[] {
  return vm.qmp.receivedOf('device_del').map(({ arguments: args }) => String(args['id']));
}

describe('a slot that was just freed', { timeout: 240_000 }, () => {
  it('is used again only when two devices that were asked for later have gone, one after the other', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox('one', {}, 1);
    await rig.attach('a');
    await rig.detach('a');
    vm.model.unplug = 'manual';
    const attach = rig.attach('b');
    await vm.qmp.waitForCommand('device_del', 2);
    assert.deepEqual(plugged(vm), ['vol-1-a@0x1', 'fence-1@0x1']);
    assert.equal((await rig.volume('b')).state, 'VOLUME_STATE_PENDING');
    vm.model.completeUnplug('fence-1');
    await vm.qmp.waitForCommand('device_del', 3);
    assert.equal((await rig.volume('b')).state, 'VOLUME_STATE_PENDING');
    vm.model.completeUnplug('fence-2');
    assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(plugged(vm), ['vol-1-a@0x1', 'fence-1@0x1', 'fence-2@0x2', 'vol-2-b@0x1']);
  });

  it('gets no disk while the guest does not come to an end, and the next attach goes on from there', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox('one', {}, 1);
    await rig.attach('a');
    await rig.detach('a');
    vm.model.unplug = 'manual';
    const seen = await refusal(rig.attach('b', 300));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'SLOT_NOT_SETTLED']);
    assert.deepEqual(vm.held, ['fence-1'], 'nothing of the volume is in QEMU');
    await rig.until('b', 'VOLUME_STATE_REMOVED');
    vm.model.unplug = 'at once';
    assert.equal((await rig.attach('c')).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(
      vm.held.filter((name) => name.startsWith('fence-')),
      [],
    );
  });

  it('needs no fence when two disks have gone since, and is used before the others', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox('one', {}, 3);
    for (const id of ['a', 'b', 'c']) await rig.attach(id);
    for (const id of ['b', 'c', 'a']) await rig.detach(id);
    await rig.attach('d');
    assert.deepEqual(plugged(vm), ['vol-1-a@0x1', 'vol-2-b@0x2', 'vol-3-c@0x3', 'vol-4-d@0x2']);
  });

  it('leaves no fence behind whose device_add is answered after its time', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 300, attach_timeout_ms: 300 });
    const vm = await rig.sandbox('one', {}, 1);
    await rig.attach('a');
    await rig.detach('a');
    const usual = vm.qmp.handlerOf('device_add');
    vm.qmp.on('device_add', async (args, context) => {
      await sleep(1000);
      return usual(args, context);
    });
    const seen = await refusal(rig.attach('b'));
    assert.equal(seen.reason, 'SLOT_NOT_SETTLED');
    await until('the guest is asked for it', () => asked(vm).includes('fence-1'));
    await until('it has gone', () => vm.held.length === 0);
  });

  it('is waited for over a connection that breaks', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox('one', {}, 1);
    await rig.attach('a');
    await rig.detach('a');
    vm.model.unplug = 'manual';
    const attach = rig.attach('b');
    await vm.qmp.waitForCommand('device_del', 2);
    vm.model.unplug = 'at once';
    vm.qmp.drop();
    assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(plugged(vm), ['vol-1-a@0x1', 'fence-1@0x1', 'fence-2@0x2', 'fence-3@0x3', 'vol-2-b@0x1']);
  });

  it('is not known to a daemon that comes back, and neither is what a killed one had asked of its fence', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox('one', {}, 1);
    await rig.attach('a');
    await rig.detach('a');
    vm.model.unplug = 'manual';
    rig.attach('b').catch(() => undefined);
    await vm.qmp.waitForCommand('device_del', 2);
    await rig.restart('SIGKILL');
    vm.model.unplug = 'at once';
    assert.equal((await rig.attach('c')).state, 'VOLUME_STATE_ATTACHED');
    const fences = plugged(vm).filter((name) => name.startsWith('fence-'));
    assert.deepEqual(fences, ['fence-1@0x1', 'fence-2@0x2', 'fence-3@0x3'], 'a seat of its own for each');
    const last = asked(vm).slice(-3);
    assert.deepEqual(last, ['fence-1', 'fence-2', 'fence-3'], 'the one that was left goes first');
  });

  it('is used as it is in a VM that an earlier version launched without a bridge for fences', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox('one', {}, 1);
    const usual = vm.qmp.handlerOf('qom-list');
    vm.qmp.on('qom-list', async (args, context) => {
      const all = (await usual(args, context)) as readonly { readonly name: string }[];
      return all.filter(({ name }) => name !== 'fence');
    });
    await rig.attach('a');
    await rig.detach('a');
    assert.equal((await rig.attach('b')).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(plugged(vm), ['vol-1-a@0x1', 'vol-2-b@0x1']);
  });

  for (const [what, known] of [
    ['has the device, and refuses it for another reason', true],
    ['was built without the device', false],
  ] as const) {
    it(`of a QEMU that ${what}: ${known ? 'gets no disk' : 'is used as it is'}`, async () => {
      await using rig = await FakeVmRig.start(SLOW);
      const vm = await rig.sandbox('one', {}, 1);
      await rig.attach('a');
      await rig.detach('a');
      const usual = vm.qmp.handlerOf('device_add');
      vm.qmp.on('device_add', (args, context) => {
        if (args['driver'] === 'pci-testdev') throw new QmpFailure('Bus has no room for it');
        return usual(args, context);
      });
      const list = vm.qmp.handlerOf('device-list-properties');
      vm.qmp.on('device-list-properties', (args, context) => {
        if (args['typename'] !== 'pci-testdev') return list(args, context);
        return known ? [] : new QmpFailure("Device 'pci-testdev' not found", 'DeviceNotFound');
      });
      if (known) {
        const seen = await refusal(rig.attach('b'));
        assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'SLOT_NOT_SETTLED']);
        assert.match(seen.message, /Bus has no room/);
        await rig.until('b', 'VOLUME_STATE_REMOVED');
      } else {
        assert.equal((await rig.attach('b')).state, 'VOLUME_STATE_ATTACHED');
      }
    });
  }
});

describe('a guest that is asked for many disks', { timeout: 240_000 }, () => {
  const ids = Array.from({ length: 9 }, (_, index) => `v${index}`);

  it('is asked for a few at once, for the next as they go, and for none twice', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await Promise.all(ids.map((id) => rig.attach(id)));
    vm.model.unplug = 'manual';
    const detached = rig.client.detachMany({ sandboxId: 'one', volumeIds: ids });
    for (let gone = 0; gone < ids.length; gone += 1) {
      await vm.qmp.waitForCommand('device_del', Math.min(gone + 4, ids.length));
      const all = asked(vm);
      assert.ok(all.length <= gone + 4, `${all.length} were asked for after ${gone} had gone`);
      vm.model.completeUnplug(all[gone] ?? '');
    }
    for (const { volume } of await detached) assert.equal(volume?.state, 'VOLUME_STATE_REMOVED');
    assert.equal(new Set(asked(vm)).size, ids.length);
    assert.equal(asked(vm).length, ids.length);
  });

  it('and lets go of none is asked for all in the end, and again', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await Promise.all(ids.map((id) => rig.attach(id)));
    vm.model.unplug = 'manual';
    const detached = rig.client.detachMany({ sandboxId: 'one', volumeIds: ids });
    await until('each is asked for', () => (new Set(asked(vm)).size === ids.length ? true : undefined));
    await until('and one again', () => (asked(vm).length > ids.length ? true : undefined));
    for (const device of new Set(asked(vm))) vm.model.completeUnplug(device);
    for (const { volume } of await detached) assert.equal(volume?.state, 'VOLUME_STATE_REMOVED');
  });

  it('has more time for a batch than for one', async () => {
    await using rig = await FakeVmRig.start({ ...SLOW, batch_volume_ms: 600_000 });
    const vm = await rig.sandbox();
    const pair = ids.slice(0, 2);
    const paths = await Promise.all(pair.map((id) => rig.daemon.rawFile(id, 1024 * 1024)));
    const volumes = pair.map((volumeId, index) => ({ volumeId, spec: { rawFile: { path: paths[index] ?? '' } } }));
    const attached = await rig.client.attachMany({ sandboxId: 'one', volumes, timeoutMs: 1 });
    assert.deepEqual(
      attached.map(({ problem }) => problem),
      [null, null],
    );
    vm.model.unplug = 'manual';
    const detached = rig.client.detachMany({ sandboxId: 'one', volumeIds: pair, timeoutMs: 1 });
    await vm.qmp.waitForCommand('device_del', 2);
    for (const device of asked(vm)) vm.model.completeUnplug(device);
    assert.deepEqual(
      (await detached).map(({ problem }) => problem),
      [null, null],
    );
  });
});
