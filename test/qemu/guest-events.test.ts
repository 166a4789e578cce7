import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { findAllocator } from '../../src/qemu/allocator.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { driverEvidence } from '../support/trial.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();
const driver = await driverEvidence();

await describe("the guest kernel's announcements", { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
  });
  after(() => daemon[Symbol.asyncDispose]());

  async function attach(volumeId: string): Promise<Volume__Output> {
    const path = await daemon.rawFile(`${volumeId}.raw`);
    const volume = await daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { rawFile: { path } } });
    assert.equal(volume.state, 'VOLUME_STATE_ATTACHED');
    return volume;
  }
  const detach = (volumeId: string): Promise<unknown> => daemon.client.detach({ sandboxId: 'vm', volumeId });
  const serialOf = async ({ guestDevice }: Volume__Output): Promise<string> =>
    (await daemon.client.guest('vm', `cat /sys/block/${guestDevice.replace('/dev/', '')}/serial`)).trim();

  /**
   * Attaches and detaches until an attach was told of by the kernel: the daemon begins to listen a moment after the
   * start.
   */
  async function untilAnnounced(): Promise<void> {
    let count = 0;
    await until('an announced disk', async () => {
      const volumeId = `try${count}`;
      count += 1;
      const volume = await attach(volumeId);
      assert.equal(await serialOf(volume), volumeId);
      await detach(volumeId);
      return volume.evidence.includes('guest-uevent');
    });
  }

  await it('name a disk as the guest itself does, one after the other', async () => {
    await untilAnnounced();
    for (let round = 0; round < 6; round += 1) {
      const volume = await attach('one');
      assert.deepEqual(volume.evidence, [driver, 'guest-uevent']);
      assert.equal(await serialOf(volume), 'one');
      await detach('one');
    }
  });

  await it('name each disk of a batch', async () => {
    await untilAnnounced();
    const volumes = await Promise.all(
      Array.from({ length: 12 }, async (_, index) => ({
        volumeId: `b${index}`,
        spec: { rawFile: { path: await daemon.rawFile(`b${index}.raw`) } },
      })),
    );
    const results = await daemon.client.attachMany({ sandboxId: 'vm', volumes });
    for (const { volume, problem, volumeId } of results) {
      assert.equal(problem, null);
      assert.ok(volume);
      assert.deepEqual(volume.evidence, [driver, 'guest-uevent']);
      assert.equal(await serialOf(volume), volumeId);
    }
    await daemon.client.detachMany({ sandboxId: 'vm', volumeIds: volumes.map(({ volumeId }) => volumeId) });
  });

  await it('are not needed: whoever passes them on is ended, held up, and comes back', async () => {
    await untilAnnounced();
    // Stopped, it announces nothing; the disk is found by looking and asking.
    await daemon.client.guest('vm', 'killall -STOP qshim-uevents');
    const unseen = await attach('unseen');
    assert.deepEqual(unseen.evidence, [driver, 'guest-agent']);
    assert.equal(await serialOf(unseen), 'unseen');
    await daemon.client.guest('vm', 'killall -KILL qshim-uevents');
    await detach('unseen');
    const next = await attach('next');
    assert.equal(await serialOf(next), 'next');
    await detach('next');
    await untilAnnounced();
  });

  await it('of the boot before count no more after a reset', async () => {
    await untilAnnounced();
    const kept = await attach('kept');
    await daemon.client.guest('vm', '(sleep 0.2; reboot -f) >/dev/null 2>&1 &');
    await until('the new boot has told its name', async () => {
      const { evidence } = await daemon.client.getVolume('vm', 'kept');
      return !evidence.includes('guest-uevent') && evidence.includes('guest-agent');
    });
    assert.equal(await serialOf(await daemon.client.getVolume('vm', 'kept')), 'kept');
    await untilAnnounced();
    assert.equal(kept.guestDevice, '/dev/vda');
    await detach('kept');
  });

  await it('come to the next daemon as well', async () => {
    const held = await attach('held');
    await daemon.kill('SIGKILL');
    daemon = await TestDaemon.start({ directory: daemon.directory });
    await until('it is adopted', async () => (await daemon.client.getSandbox('vm')).agentReady);
    await untilAnnounced();
    assert.equal(await serialOf(held), 'held');
    await detach('held');
  });
});

await describe('the allocator that QEMU is given', { skip }, async () => {
  for (const setting of ['auto', 'system'] as const) {
    await it(setting, async (context) => {
      const library = await findAllocator();
      if (library === undefined && setting === 'auto') {
        context.skip('this host has neither tcmalloc nor jemalloc');
        return;
      }
      await using daemon = await TestDaemon.start({ config: { qemu_allocator: setting } });
      const { qemuPid } = await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
      const maps = await readFile(`/proc/${qemuPid}/maps`, 'utf8');
      assert.equal(/libtcmalloc|libjemalloc/.test(maps), setting === 'auto');
    });
  }
});
