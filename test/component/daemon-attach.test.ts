import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, open, readFile, readdir, readlink, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { execa } from 'execa';
import { call } from '../support/daemon.ts';
import { isServiceError, refusal } from '../support/errors.ts';
import { NO_REPLY, QmpFailure, type Arguments, type ReceivedCommand } from '../support/fake-qmp.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeScripts } from '../support/fake-scripts.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/**
 * The real daemon against a scripted QEMU: what an attach says to it, in which order, and what it makes of the answers.
 */

/** Refused with this code and reason; the attach is undone, and its record, slot and QEMU show it. */
async function undone(
  rig: FakeVmRig,
  vm: FakeVm,
  attach: Promise<unknown>,
  code: string,
  reason: string,
): Promise<void> {
  const seen = await refusal(attach);
  assert.deepEqual([seen.code, seen.reason], [code, reason], seen.message);
  const volume = await rig.until('a', 'VOLUME_STATE_REMOVED');
  assert.equal(volume.cause?.reason, reason);
  assert.deepEqual(vm.held, [], 'nothing is left in QEMU');
  assert.equal((await rig.client.getSandbox('one')).volumesInUse, 0);
}

function aioOf({ arguments: args }: ReceivedCommand): unknown {
  return (args['file'] as Arguments)['aio'];
}

describe('attach: the order of things', { timeout: 120_000 }, () => {
  it('intent on disk, block node, front end, then the look at the driver; detach in the opposite order', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const onDisk: string[] = [];
    for (const name of ['blockdev-add', 'device_add', 'device_del', 'blockdev-del'] as const) {
      const usual = vm.qmp.handlerOf(name);
      vm.qmp.on(name, (args, context) => {
        const journal = readFileSync(join(rig.daemon.directoryOf('one'), 'state.json'), 'utf8');
        const { volumes } = JSON.parse(journal) as Awaited<ReturnType<typeof rig.journal>>;
        onDisk.push(`${name}: ${volumes.map(({ volumeId, state }) => `${volumeId} ${state.state}`).join()}`);
        return usual(args, context);
      });
    }
    const before = vm.qmp.received.length;
    const attached = await rig.attach('a');
    assert.deepEqual(
      vm.qmp.received.slice(before).map(({ name }) => name),
      ['query-pci', 'add-fd', 'blockdev-add', 'device_add', 'x-query-virtio-status'],
    );
    assert.equal(attached.state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(attached.evidence, ['virtio-status', 'guest-agent']);
    assert.deepEqual([attached.guestDevice, attached.guestPciAddress], ['/dev/vda', '0000:01:01.0']);
    assert.deepEqual(vm.held, ['vol-1-a', 'vol-1-file', 'vol-1-fmt']);

    const detached = await rig.detach('a');
    assert.equal(detached.state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
    assert.deepEqual(onDisk, [
      'blockdev-add: a pending',
      'device_add: a pending',
      'device_del: a detaching',
      'blockdev-del: a detaching',
    ]);
  });

  it('what cannot be written down is not done', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    {
      await using _blocked = await rig.blockJournal();
      await undone(rig, vm, rig.attach('a'), 'UNAVAILABLE', 'JOURNAL_WRITE_FAILED');
      assert.ok(!vm.changes.includes('blockdev-add'), 'nothing was added to QEMU');
    }
    assert.equal((await rig.attach('a')).generation, 2);
  });

  it('ten at once: each has a slot of its own, and all come and go', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const ids = Array.from({ length: 10 }, (_, index) => `v${index}`);
    const attached = await Promise.all(ids.map((id) => rig.attach(id)));
    assert.equal(new Set(attached.map(({ pciPath }) => pciPath)).size, 10);
    assert.equal(vm.held.length, 30);
    assert.equal((await rig.client.getSandbox('one')).volumesInUse, 10);
    const removed = await Promise.all(ids.map((id) => rig.detach(id)));
    for (const { state } of removed) assert.equal(state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });

  it('what a VM that is being stopped refuses is told as the stop', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const held = vm.hold('blockdev-add');
    const attach = refusal(rig.attach('a'));
    await held.came;
    const stopped = rig.client.stopSandbox({ sandboxId: 'one' });
    await until('it stops', async () =>
      (await rig.client.getSandbox('one')).state === 'SANDBOX_STATE_STOPPING' ? true : undefined,
    );
    // A QEMU that shuts down takes its block nodes away while it still answers.
    vm.qmp.on('device_add', () => {
      throw new QmpFailure("Property 'virtio-blk-device.drive' can't find value 'vol-1-fmt'");
    });
    held.release();
    const seen = await attach;
    assert.deepEqual([seen.code, seen.reason], ['ABORTED', 'SANDBOX_STOPPING']);
    vm.exit(0);
    await stopped;
  });

  it('repeats while it is under way join it: one sequence, the same answer for all', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const held = vm.hold('device_add');
    const attaches = [rig.attach('a'), rig.attach('a')];
    await held.came;
    attaches.push(rig.attach('a'));
    held.release();
    for (const { state, generation } of await Promise.all(attaches)) {
      assert.deepEqual([state, generation], ['VOLUME_STATE_ATTACHED', 1]);
    }
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
  });
});

describe('attach: a source that is to be encrypted if it is empty', { timeout: 120_000 }, () => {
  it('is looked at again once nobody else may write: what came in between is not made an image of', async () => {
    await using stack = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'qshim-key-'));
    stack.defer(() => rm(directory, { recursive: true }));
    const fifo = join(directory, 'key');
    await execa('mkfifo', [fifo]);
    const rig = stack.use(await FakeVmRig.start({ key_commands: `held=/bin/cat ${fifo}` }));
    const vm = await rig.sandbox();
    const path = await rig.daemon.rawFile('a', 16 * 1024 * 1024);
    const hostLuks = { key: { command: 'held' }, format: 'FORMAT_IF_EMPTY' as const };
    const spec = { rawFile: { path }, encryption: { hostLuks } };
    const attach = rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
    attach.catch(() => undefined);
    // Opens when somebody reads: the source has been looked at, and its key is asked for.
    await using key = await open(fifo, 'w');
    await writeFile(path, "another volume's data", { flag: 'r+' });
    await key.write('correct horse');
    await key.close();
    await undone(rig, vm, attach, 'FAILED_PRECONDITION', 'SOURCE_NOT_EMPTY');
    assert.ok(!vm.changes.includes('blockdev-add'), 'QEMU was not given the file');
    assert.match(await readFile(path, 'latin1'), /^another volume's data/);
  });

  it('an empty file that nobody wrote to is still empty at the second look', async () => {
    await using rig = await FakeVmRig.start();
    const scripts = new FakeScripts(await rig.sandbox());
    const path = await rig.daemon.rawFile('a', 16 * 1024 * 1024);
    const mount = { fsType: 'ext4', mountPoint: '/mnt/a', format: 'FORMAT_IF_EMPTY' as const };
    const attached = await rig.client.attach({
      sandboxId: 'one',
      volumeId: 'a',
      spec: { rawFile: { path }, mount },
    });
    assert.equal(attached.state, 'VOLUME_STATE_ATTACHED');
    assert.ok(scripts.ran.includes('mount'));
  });
});

describe('attach: the way of a key to QEMU', { timeout: 120_000 }, () => {
  it('passes a directory in memory without a name there, and leaves nothing when the daemon is killed', async () => {
    await using stack = new AsyncDisposableStack();
    const secrets = await mkdtemp('/dev/shm/qshim-secrets-');
    stack.defer(() => rmdir(secrets));
    const rig = stack.use(await FakeVmRig.start({ secret_dir: secrets }));
    const vm = await rig.sandbox();
    const path = await rig.daemon.rawFile('a', 16 * 1024 * 1024);
    const key = { file: await rig.daemon.keyFile('key', 'correct horse') };
    const hostLuks = { key, format: 'FORMAT_IF_EMPTY' as const };
    const came = Promise.withResolvers<string>();
    const usual = vm.qmp.handlerOf('object-add');
    vm.qmp.on('object-add', ({ file }) => {
      came.resolve(String(file));
      return NO_REPLY;
    });
    /** What the daemon has open below a directory. */
    const openBelow = async (directory: string): Promise<readonly string[]> => {
      const descriptors = `/proc/${rig.daemon.child.pid}/fd`;
      const all = (await readdir(descriptors)).map((name) => join(descriptors, name));
      const links = await Promise.all(all.map((name) => readlink(name).catch(() => '')));
      return all.filter((_, index) => links[index]?.startsWith(`${directory}/`));
    };
    const spec = { rawFile: { path }, encryption: { hostLuks } };
    rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec }).catch(() => undefined);
    assert.match(await came.promise, /^\/proc\/self\/fd\/\d+$/, 'a descriptor that QEMU was given');
    const [file = ''] = await openBelow(secrets);
    assert.equal((await readFile(file)).length, 32, 'the master key, for as long as QEMU may read it');
    assert.equal(dirname(await readlink(file)), secrets);
    assert.deepEqual(await readdir(secrets), []);
    vm.qmp.on('object-add', usual);
    await rig.restartAfter('SIGKILL', async () => {
      await assert.rejects(stat(file), { code: 'ENOENT' });
      assert.deepEqual(await readdir(secrets), []);
    });
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });
});

describe('attach: aio modes', { timeout: 120_000 }, () => {
  /** A QEMU whose host refuses these modes. */
  function refuse(vm: FakeVm, ...modes: readonly string[]): void {
    const usual = vm.qmp.handlerOf('blockdev-add');
    vm.qmp.on('blockdev-add', (args, context) => {
      const mode = (args['file'] as Arguments)['aio'];
      if (modes.includes(String(mode))) throw new QmpFailure('Unable to use it: Operation not permitted');
      return usual(args, context);
    });
  }

  it('auto goes from the best to what works, and says which it was', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    refuse(vm, 'io_uring');
    assert.equal((await rig.attach('a')).aio, 'AIO_MODE_THREADS');
    assert.deepEqual(vm.qmp.receivedOf('blockdev-add').map(aioOf), ['io_uring', 'threads']);
    refuse(vm, 'native');
    const path = await rig.daemon.rawFile('b');
    const spec = { rawFile: { path }, cache: 'CACHE_MODE_NONE' } as const;
    const direct = await rig.client.attach({ sandboxId: 'one', volumeId: 'b', spec });
    assert.equal(direct.aio, 'AIO_MODE_THREADS');
    assert.deepEqual(vm.qmp.receivedOf('blockdev-add').slice(2).map(aioOf), ['io_uring', 'native', 'threads']);
  });

  it('when none works, nothing is left', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    refuse(vm, 'io_uring', 'threads');
    await undone(rig, vm, rig.attach('a'), 'FAILED_PRECONDITION', 'SOURCE_NOT_USABLE');
    assert.equal(vm.qmp.receivedOf('device_add').length, 0);
  });

  it('a mode that the caller chose is not replaced', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    refuse(vm, 'io_uring');
    const path = await rig.daemon.rawFile('a');
    const spec = { rawFile: { path }, aio: 'AIO_MODE_IO_URING' } as const;
    const attach = rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec });
    await undone(rig, vm, attach, 'FAILED_PRECONDITION', 'SOURCE_NOT_USABLE');
    assert.deepEqual(vm.qmp.receivedOf('blockdev-add').map(aioOf), ['io_uring']);
  });
});

describe('attach: replies that fail or do not come', { timeout: 120_000 }, () => {
  for (const name of ['blockdev-add', 'device_add'] as const) {
    it(`${name} is done and its reply lost: undone all the same, and the id is free again`, async () => {
      await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 1000 });
      const vm = await rig.sandbox();
      vm.loseReply(name);
      await undone(rig, vm, rig.attach('a'), 'DEADLINE_EXCEEDED', 'QMP_REPLY_TIMEOUT');
      const again = await rig.attach('a');
      assert.deepEqual([again.state, again.generation], ['VOLUME_STATE_ATTACHED', 2]);
    });
  }

  it('a reply that comes after its time changes nothing', async () => {
    await using rig = await FakeVmRig.start({ qmp_reply_timeout_ms: 1000 });
    const vm = await rig.sandbox();
    const held = vm.hold('device_add');
    const seen = await refusal(rig.attach('a'));
    assert.equal(seen.reason, 'QMP_REPLY_TIMEOUT');
    // QEMU does what it was told at last, and the undo, which waits behind it, undoes that.
    held.release();
    const removed = await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
    assert.equal((await rig.attach('b')).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(await rig.volume('a'), removed);
    assert.equal(vm.qmp.connections, 1, 'the connection has been kept');
  });

  it('a front end that QEMU refuses takes its block node with it', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.qmp.on('device_add', () => new QmpFailure('no such bus'));
    await undone(rig, vm, rig.attach('a'), 'INTERNAL', 'QMP_ERROR');
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add', 'device_del', 'blockdev-del']);
  });
});

describe("attach: the guest's part", { timeout: 120_000 }, () => {
  it('a driver that gives up is told, and undone', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.model.driver = 'manual';
    const attach = rig.attach('a');
    await vm.qmp.waitForCommand('x-query-virtio-status');
    vm.model.driverFailed('vol-1-a');
    await undone(rig, vm, attach, 'FAILED_PRECONDITION', 'GUEST_DRIVER_FAILED');
  });

  it('a driver that never comes up is told after the time given, and undone', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.model.driver = 'manual';
    await undone(rig, vm, rig.attach('a', 200), 'DEADLINE_EXCEEDED', 'GUEST_DRIVER_TIMEOUT');
  });

  it('the firmware is no driver; the volume is attached when the guest system takes it', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.model.driver = 'manual';
    const attach = rig.attach('a');
    await vm.qmp.waitForCommand('x-query-virtio-status');
    vm.model.firmwareLive('vol-1-a');
    await vm.qmp.waitForCommand('x-query-virtio-status', 5);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_PENDING');
    vm.model.driverLive('vol-1-a');
    assert.equal((await attach).state, 'VOLUME_STATE_ATTACHED');
  });

  it('an undo that the guest holds up goes on after the answer; until its end nothing is free', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox('one', {}, 1);
    Object.assign(vm.model, { driver: 'manual', unplug: 'manual' });
    const seen = await refusal(rig.attach('a', 200));
    assert.equal(seen.reason, 'GUEST_DRIVER_TIMEOUT');
    const pending = await rig.volume('a');
    assert.deepEqual([pending.state, pending.cause?.reason], ['VOLUME_STATE_PENDING', 'GUEST_DRIVER_TIMEOUT']);
    assert.equal((await refusal(rig.attach('a'))).reason, 'VOLUME_PENDING');
    assert.equal((await refusal(rig.detach('a'))).reason, 'VOLUME_PENDING');
    assert.equal((await refusal(rig.attach('b'))).reason, 'NO_SLOT');
    Object.assign(vm.model, { driver: 'live', unplug: 'at once' });
    assert.equal((await rig.until('a', 'VOLUME_STATE_REMOVED')).cause?.reason, 'GUEST_DRIVER_TIMEOUT');
    assert.deepEqual(vm.held, []);
    assert.equal((await rig.attach('b')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('a device that vanishes while its driver is awaited is told, and its node removed', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.model.driver = 'manual';
    const attach = rig.attach('a');
    await vm.qmp.waitForCommand('x-query-virtio-status');
    vm.model.completeUnplug('vol-1-a');
    await undone(rig, vm, attach, 'FAILED_PRECONDITION', 'DEVICE_VANISHED');
  });

  it('a device that vanishes after its driver was seen, while the guest is asked, is never ATTACHED', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.agent.answer = async (request) => {
      const answer = vm.answerAgent(request);
      if (request.execute === 'guest-get-disks' && vm.model.devices.has('vol-1-a')) {
        vm.model.completeUnplug('vol-1-a');
        // The daemon has the event by the time it answers this, and only then the agent's word.
        await rig.volume('a');
      }
      return answer;
    };
    await undone(rig, vm, rig.attach('a'), 'FAILED_PRECONDITION', 'DEVICE_VANISHED');
  });

  it('an agent that cannot name the disk is no reason to fail', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.agent.answer = () => new Error('not supported');
    const volume = await rig.attach('a');
    assert.deepEqual([volume.state, volume.guestDevice], ['VOLUME_STATE_ATTACHED', '']);
    assert.deepEqual(volume.evidence, ['virtio-status']);
  });
});

describe('attach: callers that leave, VMs that end', { timeout: 120_000 }, () => {
  it("a caller's deadline ends the caller's wait only: the volume becomes ATTACHED", async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const held = vm.hold('device_add');
    const path = await rig.daemon.rawFile('a');
    const request = { sandboxId: 'one', volumeId: 'a', spec: { rawFile: { path } } };
    const late = call((done) => rig.client.volumes.attach(request, { deadline: Date.now() + 2000 }, done));
    await assert.rejects(late, (error) => isServiceError(error) && error.code === status.DEADLINE_EXCEEDED);
    await held.came;
    held.release();
    assert.equal((await rig.until('a', 'VOLUME_STATE_ATTACHED')).generation, 1);
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
  });

  it('a caller that cancels leaves the attach to finish, and may ask again', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const held = vm.hold('device_add');
    const path = await rig.daemon.rawFile('a');
    const request = { sandboxId: 'one', volumeId: 'a', spec: { rawFile: { path } } };
    const cancelled = call((done) => {
      const ongoing = rig.client.volumes.attach(request, done);
      void held.came.then(() => ongoing.cancel());
    });
    await assert.rejects(cancelled, (error) => isServiceError(error) && error.code === status.CANCELLED);
    const again = rig.client.attach(request);
    held.release();
    assert.deepEqual([(await again).state, (await again).generation], ['VOLUME_STATE_ATTACHED', 1]);
    assert.deepEqual(vm.changes, ['blockdev-add', 'device_add']);
  });

  for (const when of ['while QEMU is told', 'while the driver is awaited'] as const) {
    it(`QEMU ends ${when}: UNAVAILABLE, REMOVED with its cause, slot and file free again`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      vm.model.driver = 'manual';
      const held = when === 'while QEMU is told' ? vm.hold('device_add') : undefined;
      const attach = refusal(rig.attach('a'));
      await (held === undefined ? vm.qmp.waitForCommand('x-query-virtio-status') : held.came);
      vm.exit(3);
      const seen = await attach;
      assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'VM_GONE'], seen.message);
      const removed = await rig.until('a', 'VOLUME_STATE_REMOVED');
      assert.equal(removed.cause?.reason, 'VM_GONE');
      const sandbox = await rig.client.getSandbox('one');
      assert.deepEqual([sandbox.state, sandbox.volumesInUse], ['SANDBOX_STATE_STOPPED', 0]);
      assert.match(sandbox.cause?.message ?? '', /code 3/);
      await rig.sandbox('two');
      assert.equal((await rig.attach('a', 0, 'two')).state, 'VOLUME_STATE_ATTACHED', 'the file is free');
    });
  }

  it('Stop pre-empts an attach that waits for the guest', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    vm.model.driver = 'manual';
    const attach = refusal(rig.attach('a'));
    await vm.qmp.waitForCommand('x-query-virtio-status');
    const stopped = await rig.client.stopSandbox({ sandboxId: 'one' });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
    const seen = await attach;
    assert.deepEqual([seen.code, seen.reason], ['ABORTED', 'SANDBOX_STOPPING']);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_REMOVED');
    assert.equal(stopped.volumesInUse, 0);
  });
});
