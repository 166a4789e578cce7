import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { call, TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';
import { VolumeEvents } from '../support/volume-events.ts';

/** What a real guest has for a while: volumes leave by themselves, and nothing is taken from who uses them. */

const MIB = 1024 * 1024;
/** Longer than a call takes on a busy machine. */
const LEASE_MS = 10_000;
const HOUR = 3_600_000;
const skip = await realVmSkipReason();

await describe('leases with a real guest', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start({ config: { lease_retry_ms: 500, lease_retry_max_ms: 1000 } });
    await daemon.client.createSandbox({ sandboxId: 'vm' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  const files = new Map<string, string>();
  const guest = async (script: string): Promise<string> => (await daemon.client.guest('vm', script)).trim();
  const mount = (at: string) => ({ fsType: 'ext4', mountPoint: at, format: 'FORMAT_IF_EMPTY' as const });

  async function attach(volumeId: string, leaseMs: number, more: VolumeSpec = {}): Promise<Volume__Output> {
    const path = files.get(volumeId) ?? (await daemon.rawFile(`${volumeId}.raw`, 64 * MIB));
    files.set(volumeId, path);
    return await daemon.client.attach({ sandboxId: 'vm', volumeId, leaseMs, spec: { rawFile: { path }, ...more } });
  }

  const renew = (volumeId: string, leaseMs: number): Promise<Volume__Output> =>
    call((done) => daemon.client.volumes.renewLease({ sandboxId: 'vm', volumeId, leaseMs }, done));

  async function inState(volumeId: string, state: Volume__Output['state']): Promise<Volume__Output> {
    return await until(`${volumeId} is ${state}`, async () => {
      const volume = await daemon.client.getVolume('vm', volumeId);
      return volume.state === state ? volume : undefined;
    });
  }

  await it('one of three seconds leaves by itself, unmounted first, and is proven gone', async () => {
    const { guestDevice } = await attach('short', HOUR, { mount: mount('/mnt/short') });
    await renew('short', 3000);
    const { cause } = await inState('short', 'VOLUME_STATE_REMOVED');
    assert.equal(cause?.reason, 'LEASE_ENDED');
    assert.equal(
      await guest(`grep -c ' /mnt/short ' /proc/mounts || true; ls ${guestDevice} 2> /dev/null || true`),
      '0',
    );
    // The file is free: another volume may have it, with what the guest had written.
    await attach('short', 0, { mount: mount('/mnt/again') });
    assert.equal((await daemon.client.getVolume('vm', 'short')).formatted, false);
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'short' });
  });

  await it('one that the guest uses is not taken, whoever uses it is told, and it goes once that has ended', async () => {
    using events = new VolumeEvents(daemon.client, 'used');
    await attach('used', HOUR, { mount: mount('/mnt/used') });
    await guest('(cd /mnt/used; exec sleep 603) > /dev/null 2>&1 & sleep 1');
    await renew('used', 1);
    const held = await events.told('LEASE_HELD');
    assert.match(held.cause?.message ?? '', /sleep \(pid \d+/);
    assert.equal(await guest("grep -c ' /mnt/used ' /proc/mounts"), '1', 'the guest has it still');
    await guest('echo kept > /mnt/used/file && sync');
    await guest('killall sleep');
    await inState('used', 'VOLUME_STATE_REMOVED');
  });

  await it('one that is renewed stays', async () => {
    const first = await attach('renewed', LEASE_MS);
    await renew('renewed', HOUR);
    // One of the same length that nobody renews has come and gone.
    await attach('other', HOUR);
    await renew('other', LEASE_MS);
    await inState('other', 'VOLUME_STATE_REMOVED');
    const now = await daemon.client.getVolume('vm', 'renewed');
    assert.deepEqual([now.state, now.generation], ['VOLUME_STATE_ATTACHED', first.generation]);
  });

  await it('one that ends while the VM is paused waits for its guest', async () => {
    using events = new VolumeEvents(daemon.client, 'paused');
    await attach('paused', HOUR);
    await daemon.client.pauseSandbox('vm');
    await renew('paused', 1);
    assert.match((await events.told('LEASE_HELD')).cause?.message ?? '', /paused/);
    assert.equal((await daemon.client.getVolume('vm', 'paused')).state, 'VOLUME_STATE_ATTACHED');
    await daemon.client.resumeSandbox('vm');
    await inState('paused', 'VOLUME_STATE_REMOVED');
  });
});
