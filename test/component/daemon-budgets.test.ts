import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Budget__Output } from '../../src/grpc/generated/qshim/v1/Budget.ts';
import type { IoLimits } from '../../src/grpc/generated/qshim/v1/IoLimits.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import type { FakeVm } from '../support/fake-qemu.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/** Budgets of I/O over several sandboxes: whoever uses them is played by what the fake QEMU counts. */

const MIB = 1024 * 1024;
const SET = 'block_set_io_throttle';
/** The period is the test's own: an adjustment comes only when it is asked for. */
const STILL = { io_budget_period_ms: 3_600_000 };

const setBudget = (rig: FakeVmRig, name: string, bps: number): Promise<Budget__Output> =>
  call((done) => rig.client.budgets.set({ name, bps }, done));
const getBudget = (rig: FakeVmRig, name: string): Promise<Budget__Output> =>
  call((done) => rig.client.budgets.get({ name }, done));

async function attach(rig: FakeVmRig, sandboxId: string, volumeId: string, limits: IoLimits): Promise<Volume__Output> {
  const path = await rig.daemon.rawFile(`${sandboxId}-${volumeId}`, MIB);
  return await rig.client.attach({ sandboxId, volumeId, spec: { rawFile: { path }, limits } });
}

const limit = (rig: FakeVmRig, volumeId: string, limits: IoLimits): Promise<Volume__Output> =>
  call((done) => rig.client.volumes.setLimits({ sandboxId: 'one', volumeId, limits }, done));

/** What QEMU holds the disks of a VM to, together. */
function held(...vms: readonly FakeVm[]): number {
  const devices = vms.flatMap((vm) => [...vm.model.devices.values()]);
  return devices.reduce((sum, { limits }) => sum + Number(limits['bps'] ?? 0), 0);
}

const partsOf = ({ members }: Budget__Output): Record<string, number> =>
  Object.fromEntries(members.map(({ sandboxId, volumeId, bps }) => [`${sandboxId}/${volumeId}`, bps]));

describe('budgets of I/O', { timeout: 120_000 }, () => {
  it('are split by shares over sandboxes; who comes takes from the others first, and together they never have more', async () => {
    await using rig = await FakeVmRig.start(STILL);
    const [one, two] = [await rig.sandbox('one'), await rig.sandbox('two')];
    await setBudget(rig, 'tenant', 8 * MIB);
    const first = await attach(rig, 'one', 'a', { budget: 'tenant' });
    assert.deepEqual([first.limits?.bps, first.limits?.budget, first.limits?.share], [8 * MIB, 'tenant', 1]);
    const sums: number[] = [];
    for (const vm of [one, two]) {
      const usual = vm.qmp.handlerOf(SET);
      vm.qmp.on(SET, (args, context) => {
        const answer = usual(args, context);
        sums.push(held(one, two));
        return answer;
      });
    }
    await attach(rig, 'two', 'b', { budget: 'tenant', share: 3 });
    assert.deepEqual(partsOf(await getBudget(rig, 'tenant')), { 'one/a': 2 * MIB, 'two/b': 6 * MIB });
    assert.equal(held(one, two), 8 * MIB);
    assert.ok(
      sums.every((sum) => sum <= 8 * MIB),
      String(sums),
    );
    await setBudget(rig, 'tenant', 4 * MIB);
    assert.deepEqual(partsOf(await getBudget(rig, 'tenant')), { 'one/a': MIB, 'two/b': 3 * MIB });
    assert.equal(held(one, two), 4 * MIB);
  });

  it('what one does not use goes to the one that is held back, and comes back when it wakes up', async () => {
    await using rig = await FakeVmRig.start({ io_budget_period_ms: 300 });
    const [one, two] = [await rig.sandbox('one'), await rig.sandbox('two')];
    await setBudget(rig, 'tenant', 8 * MIB);
    await attach(rig, 'one', 'busy', { budget: 'tenant' });
    await attach(rig, 'two', 'idle', { budget: 'tenant' });
    const busy = countsAsMuchAs(one, 100 * MIB);
    const idle = countsAsMuchAs(two, 0);
    await until('the idle one is left with what it wakes up by', async () => {
      const parts = partsOf(await getBudget(rig, 'tenant'));
      return (parts['two/idle'] ?? 0) === MIB / 4 && (parts['one/busy'] ?? 0) > 7.7 * MIB;
    });
    assert.ok(held(one, two) <= 8 * MIB);
    idle.rate = 100 * MIB;
    await until('each has its fair share', async () => {
      const parts = Object.values(partsOf(await getBudget(rig, 'tenant')));
      return parts.every((part) => part === 4 * MIB);
    });
    busy.rate = 0;
    await until('the other one has the rest', () => held(two) > 7.7 * MIB);
  });

  it('are on disk: the next daemon goes on with them, and takes what QEMU shows for what each has', async () => {
    await using rig = await FakeVmRig.start(STILL);
    const vm = await rig.sandbox();
    await setBudget(rig, 'tenant', 8 * MIB);
    await attach(rig, 'one', 'a', { budget: 'tenant' });
    await attach(rig, 'one', 'b', { budget: 'tenant' });
    await rig.restartAfter('SIGKILL', () => {
      // The last thing that it did is in no journal.
      const [device] = [...vm.model.devices.values()];
      if (device !== undefined) device.limits = { ...device.limits, bps: MIB };
      return Promise.resolve();
    });
    const seen = await until('the disks were looked at', async () => {
      const parts = partsOf(await getBudget(rig, 'tenant'));
      return parts['one/a'] === MIB && parts;
    });
    assert.equal(seen['one/b'], 4 * MIB);
    await setBudget(rig, 'tenant', 6 * MIB);
    assert.deepEqual(partsOf(await getBudget(rig, 'tenant')), { 'one/a': 3 * MIB, 'one/b': 3 * MIB });
  });

  it('a volume comes to one, and leaves it, while it is in use', async () => {
    await using rig = await FakeVmRig.start(STILL);
    const vm = await rig.sandbox();
    await setBudget(rig, 'tenant', 8 * MIB);
    await attach(rig, 'one', 'a', { bps: MIB });
    assert.equal((await limit(rig, 'a', { budget: 'tenant', share: 2 })).limits?.bps, 8 * MIB);
    assert.equal((await limit(rig, 'a', { budget: 'tenant', share: 2 })).limits?.bps, 8 * MIB, 'a repeat');
    const inUse = await refusal(call((done) => rig.client.budgets.delete({ name: 'tenant' }, done)));
    assert.deepEqual([inUse.code, inUse.reason], ['FAILED_PRECONDITION', 'BUDGET_IN_USE']);
    const own = await limit(rig, 'a', { bps: 2 * MIB });
    assert.deepEqual([own.limits?.bps, own.limits?.budget], [2 * MIB, '']);
    await call((done) => rig.client.budgets.delete({ name: 'tenant' }, done));
    const again = await call<{ notFound: boolean }>((done) => rig.client.budgets.delete({ name: 'tenant' }, done));
    assert.equal(again.notFound, true);
    assert.equal(held(vm), 2 * MIB);
  });

  it('a VM that does not do it keeps what it had, and nobody gets it', async () => {
    await using rig = await FakeVmRig.start(STILL);
    const [one, two] = [await rig.sandbox('one'), await rig.sandbox('two')];
    await setBudget(rig, 'tenant', 8 * MIB);
    await attach(rig, 'one', 'a', { budget: 'tenant' });
    one.qmp.on(SET, () => undefined);
    const refused = await refusal(attach(rig, 'two', 'b', { budget: 'tenant' }));
    assert.equal(refused.reason, 'LIMITS_FAILED');
    assert.equal(held(one, two), 8 * MIB);
  });

  it('requests that cannot be are refused by the name of the field', async () => {
    await using rig = await FakeVmRig.start(STILL);
    const vm = await rig.sandbox();
    const nothing = await refusal(setBudget(rig, 'tenant', 0));
    assert.equal(nothing.metadata['field'], 'bps');
    assert.equal((await refusal(setBudget(rig, 'a/b', 1))).reason, 'INVALID_ID');
    assert.equal((await refusal(getBudget(rig, 'tenant'))).reason, 'BUDGET_NOT_FOUND');
    assert.equal((await refusal(attach(rig, 'one', 'a', { budget: 'tenant' }))).reason, 'BUDGET_NOT_FOUND');
    await setBudget(rig, 'tenant', 1);
    const both = await refusal(attach(rig, 'one', 'a', { budget: 'tenant', bps: MIB }));
    assert.equal(both.metadata['field'], 'spec.limits.budget');
    assert.equal((await refusal(attach(rig, 'one', 'a', { share: 2 }))).metadata['field'], 'spec.limits.share');
    await attach(rig, 'one', 'a', { budget: 'tenant' });
    assert.equal((await refusal(attach(rig, 'one', 'b', { budget: 'tenant' }))).reason, 'BUDGET_FULL');
    assert.equal(vm.qmp.receivedOf('device_add').length, 1);
  });
});

/** From now on the VM's disks do as much as they are let, up to `rate` bytes a second. */
function countsAsMuchAs(vm: FakeVm, rate: number): { rate: number } {
  const usual = vm.qmp.handlerOf('query-blockstats');
  const guest = { rate };
  let bytes = 0;
  let atMs = performance.now();
  vm.qmp.on('query-blockstats', (args, context) => {
    const nowMs = performance.now();
    bytes += (Math.min(guest.rate, held(vm)) * (nowMs - atMs)) / 1000;
    atMs = nowMs;
    const stats = usual(args, context) as readonly { readonly stats: object }[];
    return stats.map((one) => ({ ...one, stats: { ...one.stats, wr_bytes: Math.round(bytes) } }));
  });
  return guest;
}
