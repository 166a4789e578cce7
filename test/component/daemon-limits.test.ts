import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { IoLimits } from '../../src/grpc/generated/qshim/v1/IoLimits.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { UNLIMITED } from '../../src/volume/model/limits.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { QmpFailure } from '../support/fake-qmp.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** What a volume is held to, and that nobody is told of it before QEMU was seen to do it. */

const MIB = 1024 * 1024;
const SET = 'block_set_io_throttle';
const all = (limits: Partial<typeof UNLIMITED>): object => ({ ...UNLIMITED, budget: '', share: 0, ...limits });

function limit(rig: FakeVmRig, volumeId: string, limits: IoLimits | null): Promise<Volume__Output> {
  return call((done) => rig.client.volumes.setLimits({ sandboxId: 'one', volumeId, limits }, done));
}

async function attach(rig: FakeVmRig, volumeId: string, limits: IoLimits): Promise<Volume__Output> {
  const path = await rig.daemon.rawFile(volumeId, MIB);
  return await rig.client.attach({ sandboxId: 'one', volumeId, spec: { rawFile: { path }, limits } });
}

/** What QEMU holds the disk to. */
function held(vm: FakeVm, volumeId: string): unknown {
  const [, device] = [...vm.model.devices].find(([id]) => id.endsWith(`-${volumeId}`)) ?? [];
  return device?.limits['bps'];
}

async function settled(rig: FakeVmRig): Promise<void> {
  await until('nothing is done to any volume', async () => {
    const { volumes } = await rig.journal();
    return volumes.every((volume) => !('operation' in volume));
  });
}

describe('limits of I/O', { timeout: 120_000 }, () => {
  it('are set live, read back, kept on record, and taken away; the same again sends nothing', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    assert.equal((await rig.attach('a')).limits, null);
    const first = await limit(rig, 'a', { bps: 2 * MIB, bpsMax: 4 * MIB });
    assert.deepEqual(first.limits, all({ bps: 2 * MIB, bpsMax: 4 * MIB, bpsMaxLengthS: 1 }));
    assert.equal(held(vm, 'a'), 2 * MIB);
    await settled(rig);
    const again = await limit(rig, 'a', { bps: 2 * MIB, bpsMax: 4 * MIB });
    assert.deepEqual(again.limits, first.limits);
    assert.equal(vm.qmp.receivedOf(SET).length, 1);
    assert.equal((await limit(rig, 'a', null)).limits?.bps, 0);
    assert.equal(held(vm, 'a'), undefined);
    const repeated = await rig.attach('a');
    assert.equal(repeated.state, 'VOLUME_STATE_ATTACHED', 'limits that were set later are no part of the spec');
  });

  it('of an attach are seen before it is ATTACHED, and are part of the spec', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const seen = vm.hold('query-block');
    const attaching = attach(rig, 'a', { iops: 100 });
    await seen.came;
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_PENDING');
    seen.release();
    assert.deepEqual((await attaching).limits, all({ iops: 100 }));
    assert.equal((await refusal(attach(rig, 'a', { iops: 200 }))).reason, 'VOLUME_EXISTS');
    assert.equal((await attach(rig, 'a', { iops: 100 })).state, 'VOLUME_STATE_ATTACHED');
  });

  it('that QEMU takes and does not show are no success; a volume whose attach asked for them is undone', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const usual = vm.qmp.handlerOf(SET);
    vm.qmp.on(SET, () => undefined);
    const unseen = await refusal(limit(rig, 'a', { bps: MIB }));
    assert.deepEqual([unseen.code, unseen.reason], ['FAILED_PRECONDITION', 'LIMITS_FAILED']);
    assert.match(unseen.message, /QEMU shows no limit/);
    assert.equal((await refusal(attach(rig, 'b', { bps: MIB }))).reason, 'LIMITS_FAILED');
    await rig.until('b', 'VOLUME_STATE_REMOVED');
    vm.qmp.on(SET, () => {
      throw new QmpFailure('no such thing');
    });
    assert.match((await refusal(limit(rig, 'a', { bps: MIB }))).message, /no such thing/);
    vm.qmp.on(SET, usual);
    assert.equal((await limit(rig, 'a', { bps: MIB })).limits?.bps, MIB, 'the slot is free again');
  });

  it('what QEMU would refuse is refused by the name of the field, and nothing is asked of it', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    const both = await refusal(limit(rig, 'a', { bps: MIB, bpsRead: MIB }));
    assert.deepEqual([both.code, both.metadata['field']], ['INVALID_ARGUMENT', 'limits.bps_read']);
    const onAttach = await refusal(attach(rig, 'b', { bpsMax: MIB }));
    assert.deepEqual([onAttach.code, onAttach.metadata['field']], ['INVALID_ARGUMENT', 'spec.limits.bps_max']);
    assert.equal((await refusal(limit(rig, 'b', { bps: MIB }))).reason, 'VOLUME_NOT_FOUND');
    await rig.detach('a');
    assert.equal((await refusal(limit(rig, 'a', { bps: MIB }))).reason, 'VOLUME_NOT_ATTACHED');
    assert.equal(vm.qmp.receivedOf(SET).length, 0);
  });

  it('of a group: one that is set changes all, their records with it, and one that leaves changes none', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await attach(rig, 'a', { bps: MIB, group: 'g' });
    await attach(rig, 'b', { bps: MIB, group: 'g' });
    await attach(rig, 'c', { bps: MIB });
    await limit(rig, 'b', { bps: 3 * MIB, group: 'g' });
    for (const [id, bps] of [
      ['a', 3],
      ['b', 3],
      ['c', 1],
    ] as const) {
      assert.equal((await rig.volume(id)).limits?.bps, bps * MIB, id);
      assert.equal(held(vm, id), bps * MIB, id);
    }
    await limit(rig, 'b', { bps: MIB });
    assert.deepEqual((await rig.volume('a')).limits, all({ bps: 3 * MIB, group: 'g' }));
    assert.deepEqual((await rig.volume('b')).limits, all({ bps: MIB }));
  });

  it('two calls at once for two volumes of a group: one after the other, and both records tell the last', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await attach(rig, 'a', { bps: MIB, group: 'g' });
    await attach(rig, 'b', { bps: MIB, group: 'g' });
    const before = vm.qmp.received.length;
    const looks = vm.hold('query-block');
    const first = limit(rig, 'a', { bps: 2 * MIB, group: 'g' });
    await looks.came;
    const second = limit(rig, 'b', { bps: 3 * MIB, group: 'g' });
    await until('the second is on record', async () =>
      (await rig.journal()).volumes.every((volume) => 'operation' in volume),
    );
    // Calls are begun in their order: after this answer the second waits for its turn, or would have asked.
    await rig.volume('b');
    looks.release();
    await Promise.all([first, second]);
    const [a, b] = await Promise.all([rig.volume('a'), rig.volume('b')]);
    assert.deepEqual(a.limits, b.limits);
    const asked = vm.qmp.received.slice(before).map(({ name }) => name);
    const one = ['query-block', SET, 'query-block'];
    assert.deepEqual(
      asked.filter((name) => one.includes(name)),
      [...one, ...one],
    );
  });

  for (const done of [true, false]) {
    it(`SIGKILL between command and look, ${done ? 'set' : 'not set'}: the next daemon sees to it, and to the group`, async () => {
      await using rig = await FakeVmRig.start();
      const vm = await rig.sandbox();
      await attach(rig, 'a', { bps: MIB, group: 'g' });
      await attach(rig, 'b', { bps: MIB, group: 'g' });
      const sent = vm.hold(SET);
      limit(rig, 'a', { bps: 2 * MIB, group: 'g' }).catch(() => undefined);
      await sent.came;
      await rig.restartAfter('SIGKILL', () => {
        if (done) sent.release();
        return Promise.resolve();
      });
      await settled(rig);
      for (const id of ['a', 'b']) {
        assert.equal((await rig.volume(id)).limits?.bps, 2 * MIB, id);
        assert.equal(held(vm, id), 2 * MIB, id);
      }
      // Two of the attaches, that of the call, perhaps that of the next daemon; none of what the records said before.
      assert.equal(vm.qmp.receivedOf(SET).length, done ? 3 : 4);
    });
  }

  it('a reply that is lost with the connection: the same daemon looks, and the limits are those asked for', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.loseReply(SET);
    const lost = refusal(limit(rig, 'a', { bps: MIB }));
    await vm.qmp.waitForCommand(SET, 1);
    vm.qmp.drop();
    assert.equal((await lost).reason, 'QMP_LOST');
    await settled(rig);
    assert.equal((await rig.volume('a')).limits?.bps, MIB);
    assert.equal(vm.qmp.receivedOf(SET).length, 1, 'it was seen to be so');
  });

  it('a daemon that comes back sets again what was changed behind its back', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await attach(rig, 'a', { bps: MIB });
    await rig.restartAfter('SIGKILL', () => {
      for (const device of vm.model.devices.values()) device.limits = {};
      return Promise.resolve();
    });
    await until('they are set again', () => held(vm, 'a') === MIB);
    assert.equal((await rig.volume('a')).limits?.bps, MIB);
  });
});
