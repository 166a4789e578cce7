import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { sleep } from '../../src/base/deadline.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { NO_REPLY } from '../support/fake-qmp.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** The real daemon ends at every moment, asked or killed; the next one on the directory finishes what was begun. */

const SIGNALS = ['SIGTERM', 'SIGKILL'] as const;

/** The sandbox is the new daemon's own: adopted, and connected. */
async function adopted(rig: FakeVmRig): Promise<void> {
  await until('the sandbox is adopted', async () => {
    const [sandbox] = await rig.client.listSandboxes();
    return sandbox?.state === 'SANDBOX_STATE_RUNNING' && sandbox.qemuVersion !== '' && sandbox.agentReady
      ? true
      : undefined;
  });
}

describe('a daemon that comes back', { timeout: 240_000 }, () => {
  it('to a QEMU that does not answer and then ends: who waited to change a volume does not hold up the end', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    // QMP serves one client at a time: while this one is there, the daemon's is not greeted.
    let other: Socket | undefined;
    await rig.restartAfter('SIGTERM', async () => {
      other = connect(vm.qmp.path);
      await once(other, 'data');
    });
    const request = { sandboxId: 'one', volumeId: 'a', sizeBytes: 2 * 1024 * 1024 };
    const resized = refusal(call((done) => rig.client.volumes.resize(request, done)));
    // Calls are begun in their order: after this answer the one before has come as far as the connection.
    await rig.volume('a');
    vm.exit(1);
    assert.equal((await resized).reason, 'VM_GONE');
    const removed = await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.equal(removed.cause?.reason, 'VM_GONE');
    await until('the sandbox is stopped', async () =>
      (await rig.client.getSandbox('one')).state === 'SANDBOX_STATE_STOPPED' ? true : undefined,
    );
    other?.destroy();
  });

  for (const signal of SIGNALS) {
    it(`after ${signal}: attached volumes are attached, as they were, and QEMU was not touched`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox('one', {}, 2);
      await rig.attach('a');
      // Whoever was told ATTACHED need not fear for it: no key and no guest is asked again.
      assert.equal((await rig.journal()).volumes[0]?.state.state, 'attached');
      const before = await rig.volume('a');
      await rig.restart(signal);
      await adopted(rig);
      // How long the attach took is not kept.
      assert.deepEqual(await rig.volume('a'), { ...before, timings: [] });
      assert.deepEqual(await rig.attach('a'), await rig.volume('a'), 'the same request is the same volume');
      assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
      assert.equal((await rig.attach('b')).generation, 2);
      assert.equal((await refusal(rig.attach('c'))).reason, 'NO_SLOT', 'the slot of the first is known');
      assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
      assert.equal((await rig.client.getSandbox('one')).qemuPid, vm.pid);
    });

    it(`after ${signal} in the middle of a detach: it is finished`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      await rig.attach('a');
      vm.model.unplug = 'manual';
      rig.detach('a').catch(() => undefined);
      await vm.qmp.waitForCommand('device_del');
      const asked = vm.qmp.receivedOf('device_del').length;
      await rig.restart(signal);
      await vm.qmp.waitForCommand('device_del', asked + 1);
      assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
      vm.model.unplug = 'at once';
      assert.equal((await rig.until('a', 'VOLUME_STATE_REMOVED')).cause?.reason, 'DETACH_REQUESTED');
      assert.deepEqual(vm.held, []);
      assert.equal((await rig.attach('a')).generation, 2);
    });

    it(`after ${signal} while the driver of a new volume was awaited: it becomes ATTACHED`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      vm.model.driver = 'manual';
      rig.attach('a').catch(() => undefined);
      await vm.qmp.waitForCommand('x-query-virtio-status');
      await rig.restart(signal);
      await adopted(rig);
      assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_PENDING');
      vm.model.driverLive('vol-1-a');
      assert.equal((await rig.until('a', 'VOLUME_STATE_ATTACHED')).generation, 1);
      assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
    });

    it(`after ${signal} between block node and front end: undone, and the id is free`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      const usual = vm.qmp.handlerOf('device_add');
      vm.qmp.on('device_add', () => NO_REPLY);
      rig.attach('a').catch(() => undefined);
      await vm.qmp.waitForCommand('device_add');
      vm.qmp.on('device_add', usual);
      await rig.restart(signal);
      await rig.until('a', 'VOLUME_STATE_REMOVED');
      assert.deepEqual(vm.held, []);
      assert.equal((await rig.attach('a')).generation, 2);
    });

    it(`after ${signal} in the middle of an undo: it is finished, with its first cause`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      Object.assign(vm.model, { driver: 'manual', unplug: 'manual' });
      assert.equal((await refusal(rig.attach('a', 100))).reason, 'GUEST_DRIVER_TIMEOUT');
      await until('the journal says so', async () =>
        (await rig.journal()).volumes[0]?.state.phase === 'undoing' ? true : undefined,
      );
      await rig.restart(signal);
      await adopted(rig);
      assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_PENDING');
      vm.model.unplug = 'at once';
      assert.equal((await rig.until('a', 'VOLUME_STATE_REMOVED')).cause?.reason, 'GUEST_DRIVER_TIMEOUT');
      assert.deepEqual(vm.held, []);
    });
  }

  it('what the guest did meanwhile is seen: a device that left, and a detach that ended', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    for (const id of ['stays', 'left', 'leaving']) await rig.attach(id);
    vm.model.unplug = 'manual';
    rig.detach('leaving').catch(() => undefined);
    await vm.qmp.waitForCommand('device_del');
    await rig.restartAfter('SIGKILL', () => {
      vm.model.completeUnplug('vol-2-left');
      vm.model.completeUnplug('vol-3-leaving');
      return Promise.resolve();
    });
    assert.equal((await rig.until('left', 'VOLUME_STATE_REMOVED')).cause?.reason, 'DEVICE_VANISHED');
    assert.equal((await rig.until('leaving', 'VOLUME_STATE_REMOVED')).cause?.reason, 'DETACH_REQUESTED');
    assert.equal((await rig.volume('stays')).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(vm.held, ['vol-1-file', 'vol-1-fmt', 'vol-1-stays']);
  });

  it('a VM that ended while nobody watched: STOPPED, its volumes REMOVED, their files free', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    await rig.restartAfter('SIGKILL', async () => {
      vm.exit(0);
      await vm.ended;
    });
    const [sandbox] = await rig.client.listSandboxes();
    assert.deepEqual([sandbox?.state, sandbox?.qemuPid], ['SANDBOX_STATE_STOPPED', 0]);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_REMOVED');
    await rig.sandbox('two');
    assert.equal((await rig.attach('a', 0, 'two')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('a QEMU that is not to be spoken to at first is asked until it answers', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('qmp_capabilities');
    let refusals = 0;
    vm.qmp.on('qmp_capabilities', (_args, { server }) => {
      refusals += 1;
      if (refusals === 3) vm.qmp.on('qmp_capabilities', usual);
      server.drop();
      return NO_REPLY;
    });
    await rig.restart('SIGTERM');
    await adopted(rig);
    assert.equal(refusals, 3);
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
  });

  it('without a journal: nobody is told that there are no volumes before QEMU was asked', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('query-status');
    await rig.restartAfter('SIGKILL', async () => {
      await rm(join(rig.daemon.directoryOf('one'), 'state.json'));
      vm.qmp.on('query-status', (args, context) => sleep(300).then(() => usual(args, context)));
    });
    assert.equal((await rig.volume('a')).generation, 1);
    await rig.until('a', 'VOLUME_STATE_ATTACHED');
  });

  const lostBefore: readonly (readonly [string, (vm: FakeVm) => void])[] = [
    ['whose guest boots', ({ model }) => model.reboot('vol-1-a')],
    ['whose driver gave up', ({ model }) => model.driverFailed('vol-1-a')],
  ];
  for (const [what, meanwhile] of lostBefore) {
    it(`without a journal, a volume ${what} for longer than an attach may take: it is not taken away`, async () => {
      await using rig = await FakeVmRig.start({ attach_timeout_ms: 200 });
      const vm = await rig.sandbox();
      await rig.attach('a', 60_000);
      await rig.restartAfter('SIGKILL', () => {
        meanwhile(vm);
        return rm(join(rig.daemon.directoryOf('one'), 'state.json'));
      });
      const tries = async (): Promise<number> =>
        (await rig.daemon.log()).split('is not seen to be in use; it stays PENDING').length;
      await until('it was given up twice', async () => (await tries()) > 2 || undefined);
      assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_PENDING');
      // A daemon that finds the record of that is as patient.
      await rig.restart('SIGKILL');
      await until('it was given up again', async () => (await tries()) > 2 || undefined);
      assert.deepEqual(vm.changes, ['blockdev-add', 'device_add'], 'nothing was asked of QEMU');
      vm.model.driverLive('vol-1-a');
      assert.equal((await rig.until('a', 'VOLUME_STATE_ATTACHED')).generation, 1);
      assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
    });
  }

  it('without a journal, a volume whose device then leaves: it ends, and its file is free', async () => {
    await using rig = await FakeVmRig.start({ attach_timeout_ms: 200 });
    const vm = await rig.sandbox();
    await rig.attach('a', 60_000);
    await rig.restartAfter('SIGKILL', async () => {
      await rm(join(rig.daemon.directoryOf('one'), 'state.json'));
      vm.model.reboot('vol-1-a');
    });
    await rig.until('a', 'VOLUME_STATE_PENDING');
    vm.model.completeUnplug('vol-1-a');
    assert.equal((await rig.until('a', 'VOLUME_STATE_REMOVED')).cause?.reason, 'DEVICE_VANISHED');
    assert.deepEqual(vm.held, []);
  });

  it('without a journal, and with a QEMU that cannot be asked: a repeated attach touches nothing', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 500 });
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('query-status');
    await rig.restartAfter('SIGKILL', async () => {
      await rm(join(rig.daemon.directoryOf('one'), 'state.json'));
      vm.qmp.on('query-status', () => NO_REPLY);
    });
    assert.equal((await refusal(rig.attach('a'))).reason, 'QMP_LOST');
    vm.qmp.on('query-status', usual);
    const again = await until('QEMU was asked', () => rig.attach('a').catch(() => undefined));
    assert.deepEqual([again.state, again.generation], ['VOLUME_STATE_ATTACHED', 1]);
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add'], 'the disk never left');
  });

  it('without a journal: a volume of a kind that is not known keeps all that it stands on, and strays go', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('query-named-block-nodes');
    await rig.restartAfter('SIGKILL', async () => {
      await rm(join(rig.daemon.directoryOf('one'), 'state.json'));
      for (const id of ['vol-1-helper', 'vol-9-helper', 'not-ours']) vm.model.objects.set(id, { 'qom-type': 'secret' });
      vm.qmp.on('query-named-block-nodes', async (args, context) => {
        const nodes = (await usual(args, context)) as readonly { readonly drv: string }[];
        return nodes.map((node) => (node.drv === 'file' ? { ...node, drv: 'of-a-later-version' } : node));
      });
    });
    await until('the stray is gone', () => (vm.model.objects.has('vol-9-helper') ? undefined : true));
    assert.deepEqual([...vm.model.objects.keys()], ['vol-1-helper', 'not-ours']);
    assert.deepEqual([...vm.model.nodes.keys()].sort(), ['vol-1-file', 'vol-1-fmt']);
    assert.match(await rig.daemon.log(), /volume could not be recovered; left as it is/);
    assert.deepEqual(await rig.client.listVolumes('one'), []);
  });

  it('to a record that cannot be read now: the VM keeps its directory, and the daemon after that adopts it', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const journal = join(rig.daemon.directoryOf('one'), 'state.json');
    await rig.restartAfter('SIGKILL', async () => {
      await rename(journal, `${journal}-away`);
      await mkdir(journal);
    });
    assert.deepEqual(await rig.client.listSandboxes(), []);
    const refused = await refusal(rig.client.createSandbox({ sandboxId: 'one' }));
    assert.equal(refused.reason, 'SANDBOX_NOT_ADOPTED');
    await rig.restartAfter('SIGTERM', async () => {
      await rmdir(journal);
      await rename(`${journal}-away`, journal);
    });
    await adopted(rig);
    assert.equal((await rig.client.getSandbox('one')).qemuPid, vm.pid);
  });

  it('to a change of key slots that was cut short: its QEMU and directory go, those of another daemon stay', async () => {
    await using rig = await FakeVmRig.start();
    const other = await mkdtemp(join(tmpdir(), 'qshim-other-'));
    await using stack = new AsyncDisposableStack();
    stack.defer(() => rm(other, { recursive: true }));
    /** A process that is found as a QEMU without a machine is, with its directory. */
    const leftIn = async (stateDir: string) => {
      const directory = join(stateDir, '.image-Ab3dEf');
      await mkdir(directory);
      await writeFile(join(directory, 'qmp.sock'), '');
      const argument = `socket,id=qmp,path=${join(directory, 'qmp.sock')},server=on,wait=off`;
      const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', argument], { stdio: 'ignore' });
      const exit = once(child, 'exit');
      stack.defer(async () => {
        child.kill('SIGKILL');
        await exit;
      });
      return { directory, child };
    };
    const theirs = await leftIn(other);
    let ours: Awaited<ReturnType<typeof leftIn>> | undefined;
    await rig.restartAfter('SIGKILL', async () => {
      ours = await leftIn(rig.daemon.stateDir);
    });
    assert.equal(ours?.child.signalCode, 'SIGKILL');
    assert.ok(!existsSync(ours.directory));
    assert.deepEqual([theirs.child.signalCode, existsSync(theirs.directory)], [null, true]);
  });
});
