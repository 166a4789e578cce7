import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
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
