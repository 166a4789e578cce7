import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { call } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';
import { VolumeEvents } from '../support/volume-events.ts';

/** The real daemon over a scripted QEMU and guest: volumes that may stay for a while only. */

const MIB = 1024 * 1024;
const HOUR = 3_600_000;
const USED = ['7 fd/3 my db'] as const;
const QUICK = { lease_retry_ms: 50, lease_retry_max_ms: 100, lease_grace_ms: 1000 };

async function attach(rig: FakeVmRig, leaseMs: number, volumeId = 'a'): Promise<Volume__Output> {
  const path = await rig.daemon.rawFile(volumeId, MIB);
  return await rig.client.attach({ sandboxId: 'one', volumeId, spec: { rawFile: { path } }, leaseMs });
}

function renew(rig: FakeVmRig, leaseMs: number): Promise<Volume__Output> {
  return call((done) => rig.client.volumes.renewLease({ sandboxId: 'one', volumeId: 'a', leaseMs }, done));
}

const endOf = ({ lease }: Volume__Output): number =>
  (lease?.until?.seconds ?? 0) * 1000 + (lease?.until?.nanos ?? 0) / 1e6;

interface JournalLease {
  lengthMs: number;
  untilMs: number;
}

/** Changes the lease in the journal while no daemon is there: so it looks to one whose wall clock has jumped. */
async function moveEnd(rig: FakeVmRig, change: (lease: JournalLease) => void): Promise<void> {
  const path = join(rig.daemon.directoryOf('one'), 'state.json');
  const record = JSON.parse(await readFile(path, 'utf8')) as { volumes: { lease: JournalLease }[] };
  for (const { lease } of record.volumes) change(lease);
  await writeFile(path, JSON.stringify(record));
}

describe('leases', { timeout: 120_000 }, () => {
  it('one that nobody renews: told, ended, detached, and the volume is proven gone', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    const vm = await rig.sandbox();
    using events = new VolumeEvents(rig.client, 'a');
    const begun = Date.now();
    const attached = await attach(rig, HOUR);
    assert.equal(attached.lease?.lengthMs, HOUR);
    assert.ok(endOf(attached) >= begun + HOUR, 'it begins with ATTACHED');
    // What is attached for less may have gone before its caller hears of it.
    await renew(rig, 400);
    const removed = await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.deepEqual([removed.cause?.reason, removed.lease], ['LEASE_ENDED', null]);
    assert.deepEqual(vm.held, []);
    await until('all was told', () => (events.reasons('volume.removed').length > 0 ? true : undefined));
    assert.deepEqual(events.reasons('volume.lease'), ['LEASE_RENEWED', 'LEASE_ENDING', 'LEASE_ENDED']);
  });

  it('one that is renewed, by a call or a repeated Attach, ends when the last one says; a repeat without leaves it', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    await rig.sandbox();
    const first = await attach(rig, 5 * HOUR);
    const renewed = await renew(rig, 2 * HOUR);
    assert.ok(endOf(renewed) < endOf(first), 'it may be shorter');
    assert.equal((await attach(rig, 0)).lease?.lengthMs, 2 * HOUR);
    const again = await attach(rig, 3 * HOUR);
    assert.equal(again.generation, first.generation);
    assert.equal(again.lease?.lengthMs, 3 * HOUR);
    const { volumes } = await rig.journal();
    assert.equal((volumes[0] as unknown as { lease: JournalLease }).lease.lengthMs, 3 * HOUR, 'and it is on record');
    await renew(rig, 1);
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.equal((await refusal(renew(rig, 1))).reason, 'VOLUME_NOT_ATTACHED');
  });

  it('a volume without one gets one; a time that has passed, and nothing at all, are refused', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    await rig.sandbox();
    assert.equal((await rig.attach('a')).lease, null);
    const bare = (await rig.journal()).volumes[0] ?? {};
    assert.ok(!('lease' in bare), 'the version before reads such a record');
    const volume = { sandboxId: 'one', volumeId: 'a' };
    for (const lease of [
      {},
      { leaseUntil: { seconds: 1, nanos: 0 } },
      { leaseMs: 1, leaseUntil: { seconds: 2 ** 33 } },
    ]) {
      const seen = await refusal(call((done) => rig.client.volumes.renewLease({ ...volume, ...lease }, done)));
      assert.equal(seen.code, 'INVALID_ARGUMENT', seen.message);
    }
    const seconds = Math.ceil(Date.now() / 1000) + 3600;
    const lease = { leaseUntil: { seconds, nanos: 0 } };
    const given = await call<Volume__Output>((done) => rig.client.volumes.renewLease({ ...volume, ...lease }, done));
    assert.equal(endOf(given), seconds * 1000);
  });

  it('a guest that holds it keeps it: told by whom, asked again, and gone once it lets go', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    const vm = await rig.sandbox();
    vm.uses = () => USED;
    using events = new VolumeEvents(rig.client, 'a');
    await attach(rig, HOUR);
    await renew(rig, 50);
    await until(
      'it was asked for twice',
      () => events.reasons('volume.lease').filter((one) => one === 'LEASE_HELD')[1],
    );
    assert.match((await events.told('LEASE_HELD')).cause?.message ?? '', /my db \(pid 7, fd\/3\)/);
    assert.ok(!vm.changes.includes('device_del'), 'nothing was taken');
    const held = await rig.until('a', 'VOLUME_STATE_ATTACHED');
    assert.deepEqual([held.cause?.reason, held.lease?.expired], ['VOLUME_BUSY', true]);
    vm.uses = () => [];
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.ok(!events.reasons('volume.lease').includes('LEASE_FORCE_AHEAD'));
  });

  it('one that is renewed while its guest holds it stays', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    const vm = await rig.sandbox();
    vm.uses = () => USED;
    using events = new VolumeEvents(rig.client, 'a');
    await attach(rig, HOUR);
    await renew(rig, 50);
    await events.told('LEASE_HELD');
    const renewed = await until('it can be renewed', () => renew(rig, HOUR).catch(() => undefined));
    assert.equal(renewed.lease?.expired, false);
    // The guest would let it go now, at the first time of asking: whoever asked would be seen in QEMU.
    vm.uses = () => [];
    const count = events.reasons('volume.detaching').length;
    await rig.attach('b');
    await rig.detach('b');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    assert.equal(events.reasons('volume.detaching').length, count);
  });

  it('with lease_fence = force it is announced, and taken when its time has come', async () => {
    await using rig = await FakeVmRig.start({ ...QUICK, lease_fence: 'force', lease_fence_ms: 500 });
    const vm = await rig.sandbox();
    vm.uses = () => USED;
    using events = new VolumeEvents(rig.client, 'a');
    await attach(rig, HOUR);
    await renew(rig, 50);
    await events.told('LEASE_FORCE_AHEAD');
    assert.ok(!vm.changes.includes('device_del'), 'not before its time');
    assert.ok((await rig.volume('a')).lease?.forceAt !== null);
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    await until('all was told', () => (events.reasons('volume.removed').length > 0 ? true : undefined));
    const told = events.reasons('volume.lease');
    assert.ok(told.indexOf('LEASE_FORCE_AHEAD') < told.indexOf('LEASE_FORCED'), told.join());
    assert.ok(told.includes('LEASE_FORCED'), told.join());
  });

  it('ends in a VM that is paused: it waits, says so once, and asks when the VM goes on', async () => {
    await using rig = await FakeVmRig.start({ ...QUICK, lease_fence: 'force', lease_fence_ms: 1 });
    const vm = await rig.sandbox();
    await attach(rig, HOUR);
    await rig.client.pauseSandbox('one');
    using events = new VolumeEvents(rig.client, 'a');
    await renew(rig, 1);
    assert.match((await events.told('LEASE_HELD')).cause?.message ?? '', /paused/);
    // The retries of another volume's lease pass meanwhile.
    await attach(rig, 1, 'b').catch(() => undefined);
    await until('b is held too', async () => ((await rig.volume('b')).lease?.expired === true ? true : undefined));
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(
      events.reasons('volume.lease').filter((reason) => reason.startsWith('LEASE_F')),
      [],
    );
    assert.equal(events.reasons('volume.lease').filter((reason) => reason === 'LEASE_HELD').length, 1);
    assert.ok(!events.reasons('volume.detaching').length, 'nobody was asked');
    assert.ok(!vm.changes.includes('device_del'));
    await rig.client.resumeSandbox('one');
    await rig.until('a', 'VOLUME_STATE_REMOVED');
  });

  it('waits for an operation that has the volume', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    const vm = await rig.sandbox();
    await rig.attach('a');
    const held = vm.hold('block_resize');
    const request = { sandboxId: 'one', volumeId: 'a', sizeBytes: 2 * MIB };
    const resized = call((done) => rig.client.volumes.resize(request, done)).catch(() => undefined);
    await held.came;
    using events = new VolumeEvents(rig.client, 'a');
    await renew(rig, 1);
    await events.told('LEASE_ENDED');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    held.release();
    await resized;
    await rig.until('a', 'VOLUME_STATE_REMOVED');
  });

  it('the reply to the unplug is lost: it is seen all the same', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    const vm = await rig.sandbox();
    vm.loseReply('device_del');
    await attach(rig, HOUR);
    await renew(rig, 50);
    await vm.qmp.waitForCommand('device_del');
    vm.qmp.drop();
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.deepEqual(vm.held, []);
  });

  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    it(`${signal} before the end, and it ends while no daemon is there: told, kept for the grace, then detached`, async () => {
      await using rig = await FakeVmRig.start(QUICK);
      await rig.sandbox();
      using events = new VolumeEvents(rig.client, 'a');
      await attach(rig, HOUR);
      await rig.restartAfter(signal, () => moveEnd(rig, (lease) => (lease.untilMs = Date.now() - 1)));
      events.follow(rig.client);
      assert.match((await events.told('LEASE_ENDING')).cause?.message ?? '', /absence/);
      await rig.until('a', 'VOLUME_STATE_REMOVED');
      await until('all was told', () => (events.reasons('volume.removed').length > 0 ? true : undefined));
      assert.deepEqual(events.reasons('volume.lease'), ['LEASE_ENDING', 'LEASE_ENDED']);
    });
  }

  it('its holder can renew it within the grace', async () => {
    await using rig = await FakeVmRig.start({ ...QUICK, lease_grace_ms: HOUR });
    await rig.sandbox();
    using events = new VolumeEvents(rig.client, 'a');
    await attach(rig, HOUR);
    await rig.restartAfter('SIGKILL', () => moveEnd(rig, (lease) => (lease.untilMs = Date.now() - 1)));
    events.follow(rig.client);
    await events.told('LEASE_ENDING');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    const renewed = await renew(rig, HOUR);
    assert.ok(endOf(renewed) > Date.now());
    assert.equal(renewed.lease?.warned, false);
  });

  it('SIGKILL between its end and the detach: the next daemon goes on, asks, and takes nothing from who holds it', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    const vm = await rig.sandbox();
    vm.uses = () => USED;
    using events = new VolumeEvents(rig.client, 'a');
    await attach(rig, HOUR);
    await renew(rig, 50);
    await events.told('LEASE_HELD');
    await rig.restartAfter('SIGKILL', () => Promise.resolve());
    const count = events.reasons('volume.lease').length;
    events.follow(rig.client);
    await until('it was told again', () => events.reasons('volume.lease').slice(count).includes('LEASE_HELD'));
    assert.ok(!vm.changes.includes('device_del'));
    vm.uses = () => [];
    await rig.until('a', 'VOLUME_STATE_REMOVED');
  });

  it('a force that was announced is not used by a daemon that is not configured for it', async () => {
    await using rig = await FakeVmRig.start({ ...QUICK, lease_fence: 'force', lease_fence_ms: 30_000 });
    const vm = await rig.sandbox();
    vm.uses = () => USED;
    using events = new VolumeEvents(rig.client, 'a');
    await attach(rig, HOUR);
    await renew(rig, 50);
    await events.told('LEASE_FORCE_AHEAD');
    await until('it is on record', async () => {
      const [volume] = (await rig.journal()).volumes as unknown as { lease: { forceAtMs?: number } }[];
      return volume?.lease.forceAtMs;
    });
    rig.settings.lease_fence = 'off';
    await rig.restartAfter('SIGKILL', () =>
      moveEnd(rig, (lease) => Object.assign(lease, { forceAtMs: Date.now() - 1 })),
    );
    const count = events.reasons('volume.lease').length;
    events.follow(rig.client);
    const held = () =>
      events
        .reasons('volume.lease')
        .slice(count)
        .filter((reason) => reason === 'LEASE_HELD')[1];
    await until('it was asked for twice', held);
    assert.ok(!events.reasons('volume.lease').includes('LEASE_FORCED'));
    assert.ok(!vm.changes.includes('device_del'));
  });

  it('a wall clock that was set back makes none longer than it was given for', async () => {
    await using rig = await FakeVmRig.start({ ...QUICK, lease_grace_ms: 1 });
    await rig.sandbox();
    await attach(rig, HOUR);
    await rig.restartAfter('SIGKILL', () =>
      moveEnd(rig, (lease) => Object.assign(lease, { lengthMs: 300, untilMs: Date.now() + HOUR })),
    );
    await rig.until('a', 'VOLUME_STATE_REMOVED');
  });

  it('a batch has one for each volume', async () => {
    await using rig = await FakeVmRig.start(QUICK);
    await rig.sandbox();
    const spec = async (id: string) => ({ rawFile: { path: await rig.daemon.rawFile(id, MIB) } });
    const volumes = [
      { volumeId: 'a', spec: await spec('a'), leaseMs: 100 },
      { volumeId: 'b', spec: await spec('b') },
    ];
    await rig.client.attachMany({ sandboxId: 'one', volumes });
    await rig.until('a', 'VOLUME_STATE_REMOVED');
    assert.equal((await rig.volume('b')).lease, null);
  });
});
