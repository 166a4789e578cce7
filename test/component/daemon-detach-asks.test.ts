import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { call } from '../support/daemon.ts';
import { QmpFailure } from '../support/fake-qmp.ts';
import { refusal } from '../support/errors.ts';
import { FakeScripts } from '../support/fake-scripts.ts';
import { FakeVmRig } from '../support/fake-vm-rig.ts';
import { until } from '../support/until.ts';

/**
 * The real daemon against a scripted QEMU and guest: without force no disk leaves before its guest has said that nobody
 * uses it, and no answer is no leave.
 */

const MIB = 1024 * 1024;
const ADDRESS = '0000:01:01.0';

async function attachMounted(rig: FakeVmRig): Promise<void> {
  const path = await rig.daemon.rawFile('m', MIB);
  const mount = { fsType: 'ext4', mountPoint: '/data' };
  await rig.client.attach({ sandboxId: 'one', volumeId: 'm', spec: { rawFile: { path }, mount } });
}

/** Refused without an answer: ATTACHED as before, and QEMU has not been asked for anything. */
async function assertKept(
  rig: FakeVmRig,
  volumeId: string,
  vm: { readonly changes: readonly string[] },
): Promise<void> {
  const kept = await rig.volume(volumeId);
  assert.deepEqual([kept.state, kept.cause?.reason], ['VOLUME_STATE_ATTACHED', 'GUEST_NOT_ASKED']);
  assert.ok(!vm.changes.includes('device_del'), 'QEMU was asked');
}

describe('detach: guests that do not answer', { timeout: 120_000 }, () => {
  it('a silent agent: refused, ATTACHED, --force is named; later the guest answers', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.agent.stop();
    vm.agent.hangUp();
    const seen = await refusal(rig.detach('a', { timeoutMs: 1000 }));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'GUEST_NOT_ASKED']);
    assert.match(seen.message, /--force/);
    await assertKept(rig, 'a', vm);
    vm.agent.start();
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED');
  });

  it('a caller hears in its own time; the agent that comes back in time is asked', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.agent.stop();
    vm.agent.hangUp();
    assert.equal((await refusal(rig.detach('a', { timeoutMs: 2000 }))).reason, 'GUEST_NOT_ASKED');
    const detach = rig.detach('a');
    await rig.until('a', 'VOLUME_STATE_DETACHING');
    vm.agent.start();
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
  });

  it('by force it goes without an answer, also what qshim mounted', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    new FakeScripts(vm);
    await rig.attach('a');
    await attachMounted(rig);
    vm.agent.stop();
    vm.agent.hangUp();
    const both = await Promise.all(['a', 'm'].map((id) => rig.detach(id, { force: true })));
    for (const { state } of both) assert.equal(state, 'VOLUME_STATE_REMOVED');
  });

  it('force joins a detach that waits for the answer, and ends the waiting', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.agent.stop();
    vm.agent.hangUp();
    const plain = rig.detach('a');
    await rig.until('a', 'VOLUME_STATE_DETACHING');
    const joined = await refusal(rig.detach('a', { timeoutMs: 100 }));
    // Whether the other caller's question is answered in its time is not known yet.
    assert.deepEqual([joined.code, joined.reason], ['DEADLINE_EXCEEDED', 'GUEST_HOLDS_VOLUME']);
    assert.match(joined.message, /has not said whether it uses/);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_DETACHING');
    assert.equal((await rig.detach('a', { force: true })).state, 'VOLUME_STATE_REMOVED');
    assert.equal((await plain).state, 'VOLUME_STATE_REMOVED');
  });

  it('an agent that runs no programs cannot tell: refused at once', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    vm.agent.answer = () => new Error('disabled');
    const seen = await refusal(rig.detach('a'));
    assert.deepEqual([seen.reason, seen.metadata['cause']], ['GUEST_NOT_ASKED', 'GUEST_TOOL_MISSING']);
    await assertKept(rig, 'a', vm);
    assert.equal((await rig.detach('a', { force: true })).state, 'VOLUME_STATE_REMOVED');
  });

  it('a look that was cut short names nobody, and says nothing', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const scripts = new FakeScripts(vm);
    await rig.attach('a');
    for (const lines of [[], [`disk=${ADDRESS} 254:0`], ['looked=1'], ['error=GUEST_PROBE_FAILED']]) {
      scripts.print('holders', lines);
      const seen = await refusal(rig.detach('a'));
      assert.deepEqual([seen.reason, seen.metadata['cause']], ['GUEST_NOT_ASKED', 'GUEST_PROBE_FAILED']);
      await assertKept(rig, 'a', vm);
    }
    scripts.print('holders', [`missing=${ADDRESS} GUEST_DISK_MISMATCH`, 'looked=1']);
    assert.equal((await refusal(rig.detach('a'))).metadata['cause'], 'GUEST_DISK_MISMATCH');
    scripts.print('holders', [`missing=${ADDRESS} GUEST_DISK_NOT_FOUND`, 'looked=1']);
    const driven = await refusal(rig.detach('a', { timeoutMs: 1000 }));
    assert.equal(driven.reason, 'GUEST_NOT_ASKED', 'a program of the guest may drive what its kernel does not list');
    assert.match(driven.message, /a driver of its is live/);
    vm.qmp.on('x-query-virtio-status', () => {
      throw new QmpFailure('not now');
    });
    const unseen = await refusal(rig.detach('a', { timeoutMs: 1000 }));
    assert.equal(unseen.reason, 'GUEST_NOT_ASKED', 'a look that failed is none');
    assert.match(unseen.message, /not now/);
    vm.qmp.on('x-query-virtio-status', () => ({
      status: { statuses: [] },
      'guest-features': { transports: [] },
    }));
    assert.equal((await rig.detach('a')).state, 'VOLUME_STATE_REMOVED', 'who has no such disk does not use it');
  });

  it('where the guest sees the disk is not known: refused', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    await rig.attach('a');
    // A reset: the firmware has not numbered the bridges yet.
    vm.qmp.on('query-pci', () => []);
    vm.qmp.emit('RESET', { guest: true, reason: 'guest-reset' });
    const seen = await refusal(rig.detach('a', { timeoutMs: 1000 }));
    assert.equal(seen.reason, 'GUEST_NOT_ASKED');
    assert.match(seen.message, /PCI buses/);
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
  });

  it('those of a batch are asked for together, and each has its own answer', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const scripts = new FakeScripts(vm);
    const volumeIds = Array.from({ length: 12 }, (_, index) => `v${index}`);
    for (const id of volumeIds) await rig.attach(id);
    vm.uses = (pci) => (pci === '0000:01:03.0' ? ['7 fd/3 my db'] : []);
    const results = await rig.client.detachMany({ sandboxId: 'one', volumeIds });
    const problems = results.flatMap(({ volumeId, problem }) =>
      problem === null ? [] : [[volumeId, problem.message]],
    );
    assert.equal(problems.length, 1);
    assert.match(String(problems[0]), /^v2,.*my db \(pid 7, fd\/3\)/);
    const looks = scripts.ran.filter((name) => name === 'holders').length;
    assert.ok(looks < volumeIds.length, `${looks} looks`);
  });
});

describe('detach: while something is done to the volume', { timeout: 120_000 }, () => {
  it('it waits for the end of a resize, whose guest works', async () => {
    await using rig = await FakeVmRig.start();
    const vm = await rig.sandbox();
    const scripts = new FakeScripts(vm);
    await rig.attach('a');
    const usual = vm.agent.answer;
    const working = Promise.withResolvers<undefined>();
    vm.agent.answer = (request) => {
      if (request.execute === 'guest-exec-status' && scripts.ran.at(-1) === 'resize') {
        return working.promise.then(() => usual(request));
      }
      return usual(request);
    };
    const request = { sandboxId: 'one', volumeId: 'a', sizeBytes: 2 * MIB };
    const resized = call((done) => rig.client.volumes.resize(request, done));
    await until('the guest works', () => (scripts.ran.includes('resize') ? true : undefined));
    const seen = await refusal(rig.detach('a', { timeoutMs: 200 }));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'OPERATION_IN_PROGRESS']);
    assert.equal(seen.metadata['operation'], 'resize');
    assert.equal((await rig.volume('a')).state, 'VOLUME_STATE_ATTACHED');
    const detach = rig.detach('a');
    await rig.volume('a');
    working.resolve(undefined);
    await resized;
    assert.equal((await detach).state, 'VOLUME_STATE_REMOVED');
  });
});
