import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { call, TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** What can be done to a volume whose guest stands still, and what a reset leaves of it (docs/live.md). */

const MIB = 1024 * 1024;
const skip = await realVmSkipReason();

await describe('a paused VM', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  await it('what QEMU does alone is done, what needs the guest changes nothing; a reset lets it go on', async () => {
    const { client } = daemon;
    const volume = { sandboxId: 'vm', volumeId: 'a' };
    const path = await daemon.rawFile('a.raw', 64 * MIB);
    const mount = { fsType: 'ext4', mountPoint: '/mnt/a', format: 'FORMAT_IF_EMPTY' as const };
    await client.attach({ ...volume, leaseMs: 3_600_000, spec: { rawFile: { path }, mount } });
    await client.pauseSandbox('vm');
    const limits = { bps: 10 * MIB };
    const limited = await call<Volume__Output>((done) => client.volumes.setLimits({ ...volume, limits }, done));
    assert.equal(limited.limits?.bps, 10 * MIB);
    const resized = await refusal(call((done) => client.volumes.resize({ ...volume, sizeBytes: 96 * MIB }, done)));
    assert.deepEqual([resized.code, resized.reason], ['UNAVAILABLE', 'GUEST_AGENT_LOST']);
    const detached = await refusal(client.detach({ ...volume, timeoutMs: 1000 }));
    assert.equal(detached.reason, 'GUEST_NOT_ASKED');
    const paused = await client.getVolume('vm', 'a');
    assert.deepEqual([paused.state, paused.sizeBytes], ['VOLUME_STATE_ATTACHED', 64 * MIB]);
    const rebooted = await client.rebootSandbox({ sandboxId: 'vm', force: true });
    assert.equal(rebooted.runState, 'running');
    const kept = await client.getVolume('vm', 'a');
    assert.deepEqual([kept.state, kept.limits?.bps], ['VOLUME_STATE_ATTACHED', 10 * MIB]);
    assert.deepEqual(kept.lease, paused.lease);
    assert.ok(!kept.evidence.includes('guest-mount'), 'that was the boot before');
  });
});
