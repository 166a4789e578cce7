import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TestDaemon } from '../support/daemon.ts';
import { outcome } from '../support/grpc-errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { qemuInventory } from '../support/leaks.ts';

const skip = await realVmSkipReason();
const BATCH = 10;
/** A guest with one vCPU has about 200 interrupt vectors and every disk takes two. */
const ATTEMPTS = 120;
const FILE_BYTES = 1024 * 1024;

await describe('more disks than the guest can drive', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
  });
  after(() => daemon[Symbol.asyncDispose]());

  await it('has 62 slots by default', async () => {
    const sandbox = await daemon.client.createSandbox({
      sandboxId: 'default',
      spec: { readyWhen: 'READY_WHEN_STARTED' },
    });
    assert.equal(sandbox.volumeCapacity, 62);
    await daemon.client.deleteSandbox('default');
  });

  await it('never says ATTACHED of a disk whose driver failed, and undoes it', async () => {
    const sandbox = await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1, volumeCapacity: 150 } });
    const attached: string[] = [];
    const refused: string[] = [];
    for (let first = 0; first < ATTEMPTS; first += BATCH) {
      const ids = Array.from({ length: BATCH }, (_, index) => `v${first + index}`);
      await Promise.all(
        ids.map(async (volumeId) => {
          const path = await daemon.rawFile(`${volumeId}.raw`, FILE_BYTES);
          const result = await outcome(
            daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { rawFile: { path } } }),
          );
          if (result.ok) {
            attached.push(volumeId);
            return;
          }
          refused.push(volumeId);
          assert.match(result.error.details, /driver gave up on volume/);
        }),
      );
    }
    assert.ok(refused.length > 0, 'the guest ran out of interrupt vectors');
    assert.ok(attached.length >= 62, `the default capacity is usable (${attached.length})`);

    // What qshim says, what the guest has and what QEMU has are the same.
    const said = (await daemon.client.listVolumes('vm'))
      .filter(({ state }) => state === 'VOLUME_STATE_ATTACHED')
      .map(({ volumeId }) => volumeId);
    const script = 'for disk in /sys/block/vd*; do cat $disk/serial; echo; done';
    const seen = (await daemon.client.guest('vm', script)).split('\n').filter((line) => line !== '');
    assert.deepEqual(said.sort(), attached.sort());
    assert.deepEqual(seen.sort(), attached.sort());
    const inventory = await qemuInventory(sandbox.stateDir, sandbox.qemuPid);
    assert.equal(inventory.peripherals.filter((name) => name.startsWith('vol-')).length, attached.length);
    assert.equal(inventory.blockNodes.filter((name) => name.startsWith('vol-')).length, 2 * attached.length);
    for (const volume of await daemon.client.listVolumes('vm')) {
      if (!refused.includes(volume.volumeId)) continue;
      assert.equal(volume.state, 'VOLUME_STATE_REMOVED');
      assert.equal(volume.cause?.reason, 'GUEST_DRIVER_FAILED');
    }
    // What was undone left its slot free: once a disk has gone, another can come.
    const [gone] = attached;
    assert.ok(gone !== undefined);
    await daemon.client.detach({ sandboxId: 'vm', volumeId: gone });
    const [late] = refused;
    const path = await daemon.rawFile('late.raw', FILE_BYTES);
    const again = await daemon.client.attach({ sandboxId: 'vm', volumeId: late ?? '', spec: { rawFile: { path } } });
    assert.equal(again.state, 'VOLUME_STATE_ATTACHED');
  });
});
