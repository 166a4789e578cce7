import assert from 'node:assert/strict';
import { rename, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import type { ListOperationsResponse__Output } from '../../src/grpc/generated/qshim/v1/ListOperationsResponse.ts';
import type { Operation__Output } from '../../src/grpc/generated/qshim/v1/Operation.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { QmpFailure } from '../support/fake-qmp.ts';
import { FakeScripts } from '../support/fake-scripts.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/**
 * The one slot that a volume has for what is done to it while it stays attached: who comes second, and what a daemon
 * finds that comes back. Nobody plays the guest here, so that the second half of a resize fails.
 */

const MIB = 1024 * 1024;

function resize(rig: FakeVmRig, sizeBytes: number): Promise<unknown> {
  return call((done) => rig.client.volumes.resize({ sandboxId: 'one', volumeId: 'a', sizeBytes }, done));
}

/** What the journal says is being done to the volume. */
async function operation(rig: FakeVmRig): Promise<unknown> {
  const { volumes } = await rig.journal();
  const [volume] = volumes as readonly (object & { readonly operation?: unknown })[];
  return volume !== undefined && 'operation' in volume ? volume.operation : 'none';
}

async function settledOperation(rig: FakeVmRig): Promise<void> {
  await until('the journal says that nothing is done', async () =>
    (await operation(rig)) === 'none' ? true : undefined,
  );
}

/** A volume with a file system that has to grow with it. */
async function mounted(
  rig: FakeVmRig,
  readyWhen: 'READY_WHEN_AGENT' | 'READY_WHEN_STARTED',
): Promise<{ readonly vm: FakeVm; readonly scripts: FakeScripts }> {
  const spec = { accelerator: 'ACCELERATOR_TCG' as const, readyWhen };
  const [, vm] = await Promise.all([rig.client.createSandbox({ sandboxId: 'one', spec }), rig.qemu.vm('one')]);
  const scripts = new FakeScripts(vm);
  const path = await rig.daemon.rawFile('a', MIB);
  const mount = { fsType: 'ext4', mountPoint: '/mnt/a' };
  await rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec: { rawFile: { path }, mount } });
  return { vm, scripts };
}

/** All operations of the sandbox that are told. */
async function operations(rig: FakeVmRig): Promise<readonly Operation__Output[]> {
  const answer = await call<ListOperationsResponse__Output>((done) =>
    rig.client.operations.list({ sandboxId: 'one' }, done),
  );
  return answer.operations;
}

/** All events up to the adoption of the sandbox. */
async function untilAdopted(rig: FakeVmRig): Promise<readonly Event__Output[]> {
  const stream = rig.client.events.watch({ sandboxId: 'one', allRetained: true });
  const told: Event__Output[] = [];
  for await (const event of stream as AsyncIterable<Event__Output>) {
    told.push(event);
    if (event.type === 'sandbox.adopted') break;
  }
  stream.cancel();
  return told;
}

describe('operations on an attached volume', { timeout: 120_000 }, () => {
  it('a second one is refused with the name of the first, the same one joins it, and it is on record while it lasts', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    assert.equal(await operation(rig), 'none', 'the version before reads such a record');
    const held = vm.hold('block_resize');
    const first = refusal(resize(rig, 2 * MIB));
    await held.came;
    assert.deepEqual(await operation(rig), { kind: 'resize', sizeBytes: 2 * MIB, timeoutMs: 120_000 });
    const other = await refusal(resize(rig, 4 * MIB));
    assert.deepEqual([other.code, other.reason], ['FAILED_PRECONDITION', 'OPERATION_IN_PROGRESS']);
    assert.equal(other.metadata['operation'], 'resize');
    const second = refusal(resize(rig, 2 * MIB));
    // Calls are begun in their order: after this answer the one before has joined.
    await rig.volume('a');
    held.release();
    const ends = await Promise.all([first, second]);
    assert.equal(ends[0].message, ends[1].message);
    assert.equal(vm.qmp.receivedOf('block_resize').length, 1, 'asked once for both');
    await settledOperation(rig);
    assert.equal((await rig.volume('a')).sizeBytes, 2 * MIB);
  });

  it('one is told while it is under way, is followed to its end, and is remembered by the next daemon', async () => {
    await using rig = await FakeVmRig.start();
    const { vm } = await mounted(rig, 'READY_WHEN_AGENT');
    assert.deepEqual(await operations(rig), []);
    const held = vm.hold('block_resize');
    const first = resize(rig, 2 * MIB);
    await held.came;
    const [running] = await operations(rig);
    assert.ok(running !== undefined);
    const { operationId } = running;
    assert.deepEqual(
      [running.kind, running.state, running.volumeId, running.endedAt],
      ['resize', 'OPERATION_STATE_RUNNING', 'a', null],
    );
    assert.equal((await rig.volume('a')).operation?.operationId, operationId);
    const watch = rig.client.operations.watch({ sandboxId: 'one', operationId });
    const cancelled = await refusal(
      call((done) => rig.client.operations.cancel({ sandboxId: 'one', operationId }, done)),
    );
    assert.deepEqual([cancelled.code, cancelled.reason], ['FAILED_PRECONDITION', 'OPERATION_NOT_CANCELLABLE']);
    held.release();
    await first;
    const states: string[] = [];
    for await (const told of watch as AsyncIterable<Operation__Output>) states.push(told.state);
    assert.deepEqual(states, ['OPERATION_STATE_RUNNING', 'OPERATION_STATE_SUCCEEDED'], 'and then it ends');
    assert.equal((await rig.volume('a')).operation, null);
    await settledOperation(rig);
    await rig.restartAfter('SIGKILL', () => Promise.resolve());
    const told = await untilAdopted(rig);
    const count = (type: string): number => told.filter((event) => event.type === type).length;
    assert.equal(count('volume.attached'), 1, 'the next daemon tells no state again for what was told since');
    assert.equal(count('volume.operation'), 2);
    const [ended] = await operations(rig);
    assert.deepEqual([ended?.operationId, ended?.state], [operationId, 'OPERATION_STATE_SUCCEEDED']);
    assert.deepEqual(ended?.startedAt, running.startedAt);
    const unknown = await refusal(
      call((done) => rig.client.operations.get({ sandboxId: 'one', operationId: 'x' }, done)),
    );
    assert.deepEqual([unknown.code, unknown.reason], ['NOT_FOUND', 'OPERATION_NOT_FOUND']);
  });

  it('one that fails is remembered with why', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.qmp.on('block_resize', () => {
      throw new QmpFailure('no room');
    });
    assert.equal((await refusal(resize(rig, 2 * MIB))).reason, 'RESIZE_FAILED');
    const [failed] = await operations(rig);
    assert.deepEqual([failed?.state, failed?.problem?.reason], ['OPERATION_STATE_FAILED', 'RESIZE_FAILED']);
    assert.match(failed?.problem?.message ?? '', /no room/);
  });

  it('when the journal cannot be written, nothing is done, and the slot is free again', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    {
      await using _blocked = await rig.blockJournal();
      assert.equal((await refusal(resize(rig, 2 * MIB))).reason, 'JOURNAL_WRITE_FAILED');
    }
    assert.equal(vm.qmp.receivedOf('block_resize').length, 0);
    await refusal(resize(rig, 2 * MIB));
    assert.equal((await rig.volume('a')).sizeBytes, 2 * MIB);
  });

  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    it(`after ${signal} in the midst of one: the next daemon takes it up again, and ends it`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      await rig.attach('a');
      const held = vm.hold('block_resize');
      resize(rig, 2 * MIB).catch(() => undefined);
      await held.came;
      await rig.restartAfter(signal, async () => {
        assert.deepEqual(await operation(rig), { kind: 'resize', sizeBytes: 2 * MIB, timeoutMs: 120_000 });
        held.release();
      });
      await until('the volume has the new size', async () =>
        (await rig.volume('a')).sizeBytes === 2 * MIB ? true : undefined,
      );
      await settledOperation(rig);
      assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    });
  }

  it('a file that is longer than the disk is never cut: refused, or grown to its end', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const path = join(rig.daemon.volumeDir, 'a');
    await truncate(path, 4 * MIB);
    const seen = await refusal(resize(rig, 2 * MIB));
    assert.deepEqual([seen.code, seen.reason], ['FAILED_PRECONDITION', 'SHRINK_REFUSED']);
    assert.ok(seen.message.includes(String(4 * MIB)), seen.message);
    assert.equal(vm.qmp.receivedOf('block_resize').length, 0, 'QEMU would have cut it');
    assert.equal((await rig.volume('a')).sizeBytes, MIB);
    // The second half fails: nobody plays the guest.
    await refusal(resize(rig, 4 * MIB));
    assert.equal((await rig.volume('a')).sizeBytes, 4 * MIB);
  });

  it('a file of the same name that is not the one that the guest has, is not gone by', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const path = join(rig.daemon.volumeDir, 'a');
    await rename(path, `${path}.moved`);
    await writeFile(path, '');
    await truncate(path, MIB);
    assert.equal((await refusal(resize(rig, 2 * MIB))).reason, 'RESIZE_FAILED');
    assert.equal(vm.qmp.receivedOf('block_resize').length, 0);
  });

  it('a disk that has more afterwards than was asked for is taken whole, and the same again is no shrinking', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf('block_resize');
    // As QEMU does for a device, which has the size that it has.
    vm.qmp.on('block_resize', (args, context) => usual({ ...args, size: 8 * MIB }, context));
    const first = await refusal(resize(rig, 2 * MIB));
    assert.notEqual(first.reason, 'RESIZE_FAILED');
    assert.equal((await rig.volume('a')).sizeBytes, 8 * MIB, 'Get tells what was seen');
    assert.equal((await refusal(resize(rig, 4 * MIB))).reason, 'SHRINK_REFUSED');
  });

  it('a guest that cannot be asked, and would have to grow a file system: nothing is begun', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const path = await rig.daemon.rawFile('a', MIB);
    new FakeScripts(vm);
    const mount = { fsType: 'ext4', mountPoint: '/mnt/a' };
    await rig.client.attach({ sandboxId: 'one', volumeId: 'a', spec: { rawFile: { path }, mount } });
    vm.agent.stop();
    vm.qmp.emit('RESET', { guest: true, reason: 'guest-reset' });
    await until('the guest has not answered in this boot', async () =>
      (await rig.client.getSandbox('one')).agentReady ? undefined : true,
    );
    const seen = await refusal(resize(rig, 2 * MIB));
    assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'GUEST_AGENT_LOST']);
    assert.equal(vm.qmp.receivedOf('block_resize').length, 0);
  });

  for (const readyWhen of ['READY_WHEN_AGENT', 'READY_WHEN_STARTED'] as const) {
    it(`of a mounted volume is taken up once the agent has answered the new daemon (${readyWhen})`, async () => {
      await using rig = await FakeVmRig.start();
      const { vm, scripts } = await mounted(rig, readyWhen);
      const held = vm.hold('block_resize');
      resize(rig, 2 * MIB).catch(() => undefined);
      await held.came;
      await rig.restartAfter('SIGKILL', () => {
        vm.agent.stop();
        held.release();
        return Promise.resolve();
      });
      await until('what QEMU has done was seen', async () => (await rig.volume('a')).sizeBytes === 2 * MIB);
      assert.deepEqual(await operation(rig), { kind: 'resize', sizeBytes: 2 * MIB, timeoutMs: 120_000 });
      assert.ok(!scripts.ran.includes('resize'));
      vm.agent.start();
      await settledOperation(rig);
      assert.equal(scripts.ran.filter((name) => name === 'resize').length, 1, 'the file system has grown too');
    });
  }

  it('of a mounted volume whose VM is paused: nothing is begun; once it goes on, it grows', async () => {
    await using rig = await FakeVmRig.start();
    const { vm, scripts } = await mounted(rig, 'READY_WHEN_AGENT');
    await rig.client.pauseSandbox('one');
    const seen = await refusal(resize(rig, 2 * MIB));
    assert.deepEqual([seen.code, seen.reason], ['UNAVAILABLE', 'GUEST_AGENT_LOST']);
    assert.match(seen.message, /paused/);
    assert.equal(vm.qmp.receivedOf('block_resize').length, 0);
    await rig.client.resumeSandbox('one');
    await resize(rig, 2 * MIB);
    assert.equal(scripts.ran.filter((name) => name === 'resize').length, 1);
  });

  it('of a mounted volume asks the agent itself, where Create did not wait for it', async () => {
    await using rig = await FakeVmRig.start();
    const { scripts } = await mounted(rig, 'READY_WHEN_STARTED');
    await resize(rig, 2 * MIB);
    assert.equal(scripts.ran.filter((name) => name === 'resize').length, 1);
  });

  it('one whose answer was lost with the connection is taken up by the same daemon, and Get tells what was seen', async () => {
    await using rig = await FakeVmRig.start();
    const { vm, scripts } = await mounted(rig, 'READY_WHEN_AGENT');
    vm.loseReply('block_resize');
    const lost = refusal(resize(rig, 2 * MIB));
    await vm.qmp.waitForCommand('block_resize', 1);
    const held = vm.hold('query-named-block-nodes');
    vm.qmp.drop();
    assert.equal((await lost).reason, 'QMP_LOST');
    await held.came;
    assert.equal((await refusal(resize(rig, 4 * MIB))).reason, 'OPERATION_IN_PROGRESS');
    held.release();
    await settledOperation(rig);
    assert.equal((await rig.volume('a')).sizeBytes, 2 * MIB);
    assert.ok(scripts.ran.includes('resize'));
  });

  it('one whose volume leaves meanwhile ends with it', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const held = vm.hold('block_resize');
    const first = refusal(resize(rig, 2 * MIB));
    await held.came;
    vm.exit(1);
    // The connection breaks a moment before the process is seen to have ended.
    assert.ok(['QMP_LOST', 'VM_GONE'].includes((await first).reason));
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    await settledOperation(rig);
  });
});
