import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { call } from '../support/daemon.ts';
import { isServiceError, refusal } from '../support/errors.ts';
import { NO_REPLY, QmpFailure } from '../support/fake-qmp.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** The real daemon against a scripted QEMU: REMOVED is said when it was seen, in whatever order the signs come. */

const PERIPHERAL = '/machine/peripheral';
const SLOW = { unplug_retry_ms: 60_000, unplug_retry_max_ms: 60_000 };

describe('detach: signs in odd orders', { timeout: 120_000 }, () => {
  it('the event comes before the reply', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.qmp.on('device_del', () => {
      vm.model.completeUnplug('vol-1-a');
      return {};
    });
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });

  it('every event comes twice', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('device_del');
    vm.qmp.on('device_del', (args, context) => {
      vm.qmp.emit('DEVICE_DELETED', { path: `${PERIPHERAL}/vol-1-a/virtio-backend` });
      return usual(args, context);
    });
    const detach = rig.detach('a');
    await vm.qmp.waitForCommand('blockdev-del');
    vm.qmp.emit('DEVICE_DELETED', { device: 'vol-1-a', path: `${PERIPHERAL}/vol-1-a` });
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
    vm.qmp.emit('DEVICE_DELETED', { device: 'vol-1-a', path: `${PERIPHERAL}/vol-1-a` });
    assert.equal((await rig.attach('a')).generation, 2, 'late copies mean nothing to the next generation');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
  });

  it("the back end's event is reason enough to look: REMOVED when the device is listed no more", async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.model.unplug = 'manual';
    const detach = rig.detach('a');
    await vm.qmp.waitForCommand('device_del');
    vm.model.devices.delete('vol-1-a');
    vm.qmp.emit('DEVICE_DELETED', { path: `${PERIPHERAL}/vol-1-a/virtio-backend` });
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
    // QEMU sends it once the device's memory is free.
    vm.qmp.emit('DEVICE_DELETED', { device: 'vol-1-a', path: `${PERIPHERAL}/vol-1-a` });
    assert.equal((await rig.attach('a')).generation, 2);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('the event never comes: that the device is gone is seen when it is looked for', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.qmp.on('device_del', () => void vm.model.devices.delete('vol-1-a'));
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });

  it('events of other devices, of back ends, and of names that nobody knows finish nothing', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.model.unplug = 'manual';
    const detach = rig.detach('a');
    await vm.qmp.waitForCommand('device_del');
    vm.qmp.emit('DEVICE_DELETED', { device: 'vol-10-a', path: `${PERIPHERAL}/vol-10-a` });
    vm.qmp.emit('DEVICE_DELETED', { device: 'vol-1-ab', path: `${PERIPHERAL}/vol-1-ab` });
    vm.qmp.emit('DEVICE_DELETED', { path: `${PERIPHERAL}/vol-1-a/virtio-backend` });
    vm.qmp.emit('DEVICE_DELETED_BY_MAGIC', { device: 'vol-1-a' });
    vm.qmp.emit('DEVICE_UNPLUG_GUEST_ERROR', { device: 'vol-1-a', path: `${PERIPHERAL}/vol-1-a` });
    await vm.qmp.waitForCommand('device_del', 3);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    assert.equal(vm.qmp.receivedOf('blockdev-del').length, 0, 'the node stays as long as the device');
    vm.model.completeUnplug('vol-1-a');
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
  });

  it('the reply to device_del is lost', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 1000 });
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.loseReply('device_del');
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });

  it('the device has gone and its node has not: not REMOVED before that has gone, too', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('blockdev-del');
    vm.qmp.on('blockdev-del', () => new QmpFailure('Node vol-1-fmt is in use'));
    const detach = rig.detach('a');
    await vm.qmp.waitForCommand('blockdev-del', 3);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    vm.qmp.on('blockdev-del', usual);
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
    assert.equal(vm.qmp.receivedOf('device_del').length, 1, 'a device that is known to be gone is not asked for again');
  });

  it('the guest has let go and a job of QEMU has not: that is what the caller hears, and it ends with the job', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('blockdev-del');
    // As QEMU says it (block.c: bdrv_op_is_blocked; blockjob.c).
    const busy = "Node 'vol-1-fmt' is busy: block device is in use by block job: mirror";
    vm.qmp.on('blockdev-del', () => new QmpFailure(busy));
    const seen = await refusal(rig.detach('a', { timeoutMs: 1000 }));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'QEMU_HOLDS_VOLUME']);
    assert.match(seen.message, /the guest has let go of volume a.*in use by block job: mirror/);
    assert.equal(seen.metadata['holder'], `blockdev-del: ${busy}`);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    vm.qmp.on('blockdev-del', usual);
    await rig.until('a', 'VOLUME_STATE_REMOVED');
  });

  it('a success of blockdev-del is no proof: the node must be seen to be gone', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('blockdev-del');
    vm.qmp.on('blockdev-del', () => ({}));
    const detach = rig.detach('a');
    await vm.qmp.waitForCommand('blockdev-del', 3);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    vm.qmp.on('blockdev-del', usual);
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
  });
});

describe('detach: guests that hold on', { timeout: 120_000 }, () => {
  it('the deadline is told, the volume stays DETACHING, keeps what it holds, and is finished by itself', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox('one', {}, 1);
    const attached = await rig.attach('a');
    const states: string[] = [];
    const watch = rig.client.volumes.watch({ sandboxId: 'one' });
    watch.on('data', ({ event }: { event: { type: string } }) => void states.push(event.type));
    watch.on('error', () => undefined);
    await until('the watch is open', () => (states.length > 0 ? true : undefined));

    vm.model.unplug = 'manual';
    const seen = await refusal(rig.detach('a', { timeoutMs: 150 }));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'GUEST_HOLDS_VOLUME']);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    assert.equal((await refusal(rig.attach('a'))).reason, 'VOLUME_DETACHING', 'the id is not free');
    assert.equal((await refusal(rig.attach('b'))).reason, 'NO_SLOT', 'the slot is not free');
    const { rawFile } = attached.spec ?? {};
    const other = { sandboxId: 'one', volumeId: 'c', spec: { rawFile: rawFile ?? null } };
    assert.equal((await refusal(rig.client.attach(other))).reason, 'BACKING_IN_USE', 'the file is not free');

    vm.model.unplug = 'at once';
    const removed = await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.equal(removed.cause?.reason, 'DETACH_REQUESTED');
    assert.deepEqual(vm.held, []);
    await until('the watcher has seen the end', () => (states.includes('volume.removed') ? true : undefined));
    assert.deepEqual(states, ['volume.snapshot', 'volume.detaching', 'volume.removed']);
    watch.cancel();
    assert.equal((await rig.attach('b')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('twice at once: one sequence, and both are answered', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.model.unplug = 'manual';
    const both = [rig.detach('a'), rig.detach('a')];
    await vm.qmp.waitForCommand('device_del');
    both.push(rig.detach('a'));
    vm.model.completeUnplug('vol-1-a');
    for (const { state, generation } of await Promise.all(both)) {
      assert.deepEqual([state, generation], ['VOLUME_STATE_REMOVED', 1]);
    }
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add', 'device_del', 'blockdev-del']);
  });

  it('with force, it joins the detach in progress', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.model.unplug = 'manual';
    const plain = rig.detach('a');
    await vm.qmp.waitForCommand('device_del');
    const forced = rig.detach('a', { force: true, timeoutMs: 200 });
    assert.equal((await refusal(forced)).reason, 'GUEST_HOLDS_VOLUME', 'force does not make a guest let go');
    vm.model.completeUnplug('vol-1-a');
    assert.equal((await plain).state, 'VOLUME_STATE_REMOVED');
    assert.equal((await rig.detach('a', { force: true })).state, 'VOLUME_STATE_REMOVED', 'a repeat is content');
    assert.equal(vm.qmp.receivedOf('device_del').length, 1);
  });

  it("a caller's own deadline ends its wait; the detach goes on", async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.model.unplug = 'manual';
    const request = { sandboxId: 'one', volumeId: 'a' };
    const late = call((done) => rig.client.volumes.detach(request, { deadline: Date.now() + 2000 }, done));
    await assert.rejects(late, (error) => isServiceError(error) && error.code === status.DEADLINE_EXCEEDED);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    vm.model.unplug = 'at once';
    await rig.until('a', 'VOLUME_STATE_REMOVED');
  });

  it('its deadline covers the wait for its turn, too: then nothing has begun', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const held = vm.hold('block_resize');
    const resize = { sandboxId: 'one', volumeId: 'a', sizeBytes: 2 * 1024 * 1024 };
    // Its second half is the guest's, which nobody plays here.
    const resized = call((done) => rig.client.volumes.resize(resize, done)).catch(() => undefined);
    await held.came;
    for (const force of [false, true]) {
      const seen = await refusal(rig.detach('a', { timeoutMs: 200, force }));
      assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'OPERATION_IN_PROGRESS']);
      assert.equal(seen.metadata['operation'], 'resize');
    }
    held.release();
    await resized;
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED', 'its turn came and was passed on');
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
  });

  it('of a volume whose attach works in QEMU: refused at once', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const held = vm.hold('blockdev-add');
    const attach = rig.attach('a');
    await held.came;
    assert.equal((await refusal(rig.detach('a', { timeoutMs: 60_000 }))).reason, 'VOLUME_PENDING');
    held.release();
    assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
  });

  it('a device that leaves unasked: DETACHING, then REMOVED with that cause, and its node with it', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    await rig.attach('b');
    const held = vm.hold('blockdev-del');
    vm.model.completeUnplug('vol-1-a');
    await held.came;
    const leaving = await rig.volume('a');
    assert.deepEqual([leaving.state, leaving.cause?.reason], ['VOLUME_STATE_DETACHING', 'DEVICE_VANISHED']);
    held.release();
    assert.equal((await rig.until('a', 'VOLUME_STATE_REMOVED')).cause?.reason, 'DEVICE_VANISHED');
    assert.deepEqual(vm.held, ['vol-2-b', 'vol-2-file', 'vol-2-fmt']);
    assert.equal((await rig.volume('b')).state, 'VOLUME_STATE_ATTACHED');
    assert.equal(vm.qmp.receivedOf('device_del').length, 0);
  });
});

describe('detach: guests that still use it', { timeout: 120_000 }, () => {
  const MOUNTED = ['0 mount:/data kernel'];

  it('a file system that somebody mounted is not taken away, unless by force', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.uses = () => MOUNTED;
    const both = await Promise.all([refusal(rig.detach('a')), refusal(rig.detach('a'))]);
    for (const seen of both) {
      assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'VOLUME_BUSY']);
      assert.match(seen.message, /mounted in the guest at \/data/);
    }
    const kept = await rig.volume('a');
    assert.deepEqual([kept.state, kept.cause?.reason], ['VOLUME_STATE_ATTACHED', 'VOLUME_BUSY']);
    assert.equal(vm.qmp.receivedOf('device_del').length, 0, 'QEMU was not asked');
    assert.equal((await rig.detach('a', { force: true })).state, 'VOLUME_STATE_REMOVED');
  });

  it('many plain and forced detaches of a busy volume: it ends REMOVED, and nobody waits for nothing', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.uses = () => MOUNTED;
    await rig.attach('a');
    const plain = Array.from({ length: 10 }, () =>
      rig.detach('a').then(
        ({ state }) => state,
        (error: unknown) => error,
      ),
    );
    const forced = rig.detach('a', { force: true });
    assert.equal((await forced).state, 'VOLUME_STATE_REMOVED');
    for (const each of await Promise.all(plain)) {
      if (each !== 'VOLUME_STATE_REMOVED')
        assert.equal((await refusal(Promise.reject(each as Error))).reason, 'VOLUME_BUSY');
    }
    assert.deepEqual(vm.held, []);
  });

  it('QEMU does not say whether the device is there: it is asked again, and the refusal holds', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 1000 });
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.uses = () => MOUNTED;
    vm.loseReply('qom-list');
    assert.equal((await refusal(rig.detach('a'))).reason, 'VOLUME_BUSY');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('it leaves while the guest refuses: that is not forgotten for the refusal', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.uses = () => MOUNTED;
    const usual = vm.qmp.handlerOf('qom-list');
    vm.qmp.on('qom-list', (args, context) => {
      const listed = usual(args, context);
      // On the wire the event comes before the list, which still has the device.
      if (args['path'] === PERIPHERAL && vm.model.devices.has('vol-1-a')) vm.model.completeUnplug('vol-1-a');
      return listed;
    });
    await rig.detach('a').catch(() => undefined);
    const removed = await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.equal(removed.cause?.reason, 'DEVICE_VANISHED');
    assert.deepEqual(vm.held, []);
  });

  it('what cannot be written down is not begun: the volume stays ATTACHED, and a later detach succeeds', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    {
      await using _blocked = await rig.blockJournal();
      const seen = await refusal(rig.detach('a'));
      assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'JOURNAL_WRITE_FAILED']);
      assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
      assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
    }
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
  });
});

describe('detach: VMs that end', { timeout: 120_000 }, () => {
  it('Stop pre-empts a detach that hangs: the end of the VM is the end of the volume', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.model.unplug = 'manual';
    const detach = rig.detach('a');
    await vm.qmp.waitForCommand('device_del');
    assert.equal((await rig.client.stopSandbox({ sandboxId: 'one' })).state, 'SANDBOX_STATE_STOPPED');
    const removed = await detach;
    assert.deepEqual([removed.state, removed.cause?.reason], ['VOLUME_STATE_REMOVED', 'VM_GONE']);
  });

  it('QEMU ends in the middle of a detach', async () => {
    await using rig = await FakeVmRig.start(SLOW);
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.qmp.on('device_del', () => {
      vm.exit(1);
      return NO_REPLY;
    });
    const removed = await rig.detach('a');
    assert.deepEqual([removed.state, removed.cause?.reason], ['VOLUME_STATE_REMOVED', 'VM_GONE']);
    assert.equal((await rig.client.getSandbox('one')).state, 'SANDBOX_STATE_STOPPED');
  });
});
