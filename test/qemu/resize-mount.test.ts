import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { call, TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** A guest that has moved a volume's file system elsewhere: a mount that qshim did not make is not the volume's. */

const MIB = 1024 * 1024;
const skip = await realVmSkipReason();

await describe("resize looks for the mount that is the volume's", { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  const guest = async (script: string): Promise<string> => (await daemon.client.guest('vm', script)).trim();
  const encryption = { guestLuks2: { ephemeralKey: {}, mode: 'LUKS_MODE_CREATE' as const } };

  for (const [volumeId, fsType, more] of [
    ['ext4', 'ext4', {}],
    ['xfs', 'xfs', {}],
    ['sealed', 'ext4', { encryption }],
  ] as const) {
    await it(`elsewhere it is not grown, and back at its place, which has a blank, it is (${volumeId})`, async () => {
      const path = await daemon.rawFile(`${volumeId}.raw`, 384 * MIB);
      // As the shell of the guest has it, and as the request has it.
      const mountPoint = `/mnt/a ${volumeId}`;
      const mount = { fsType, mountPoint, format: 'FORMAT_IF_EMPTY' as const };
      await daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { rawFile: { path }, mount, ...more } });
      const resize = (mib: number) =>
        call((done) => daemon.client.volumes.resize({ sandboxId: 'vm', volumeId, sizeBytes: mib * MIB }, done));
      const blocks = (at: string) => guest(`stat -f -c %b '${at}'`);
      const size = await blocks(mountPoint);
      await guest(`mkdir -p /else; mount --bind '${mountPoint}' /else; umount '${mountPoint}'`);
      const seen = await refusal(resize(416));
      assert.equal(seen.reason, 'VOLUME_NOT_MOUNTED', seen.message);
      assert.equal(seen.metadata['mountPoint'], mountPoint);
      assert.equal(await blocks('/else'), size, 'it was not grown');
      assert.ok(!(await daemon.client.getVolume('vm', volumeId)).evidence.includes('guest-mount'));
      await guest(`mount --bind /else '${mountPoint}'; umount /else`);
      await resize(448);
      assert.ok(Number(await blocks(mountPoint)) > Number(size));
      await guest(`umount '${mountPoint}'`);
      const { state } = await daemon.client.detach({ sandboxId: 'vm', volumeId });
      assert.equal(state, 'VOLUME_STATE_REMOVED');
    });
  }
});
