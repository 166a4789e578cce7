import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { stat, truncate } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { ConfidentialRig, guestLuks2, hostLuks, MIB, mountAt, NOTHING_LEFT } from '../support/confidential.ts';
import { call } from '../support/daemon.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const skip = await realVmSkipReason();
const GROWN = 96 * MIB;

await describe('online resize, down to the file system', { skip }, async () => {
  let rig: ConfidentialRig;
  before(async () => {
    rig = await ConfidentialRig.start();
    await rig.daemon.keyFile('key', randomBytes(20).toString('hex'));
  });
  after(() => rig[Symbol.asyncDispose]());

  const key = (): { readonly file: string } => ({ file: `${rig.daemon.keyDir}/key` });
  const resize = (volumeId: string, sizeBytes: number): Promise<Volume__Output> =>
    call((done) => rig.daemon.client.volumes.resize({ sandboxId: 'vm', volumeId, sizeBytes }, done));
  const roomMib = async (volumeId: string): Promise<number> =>
    Number((await rig.guest(`df -P -m /mnt/${volumeId} | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2`)).trim());

  const kinds: readonly (readonly [string, () => Partial<VolumeSpec>])[] = [
    ['plain', () => ({})],
    ['host', () => hostLuks({ key: key() })],
    ['provided', () => guestLuks2({ providedKey: key() })],
    ['ephemeral', () => guestLuks2({ ephemeralKey: {} })],
  ];
  for (const [name, spec] of kinds) {
    await it(`${name}: grows, twice the same is once, never shrinks, and is there the next time`, async () => {
      const path = await rig.daemon.rawFile(`${name}.raw`, 48 * MIB);
      const whole: VolumeSpec = { rawFile: { path }, mount: mountAt(`/mnt/${name}`), ...spec() };
      await rig.attach(name, whole);
      await rig.guest(`echo kept > /mnt/${name}/f`);
      const before = await roomMib(name);
      assert.ok(before < 48, String(before));
      for (let time = 0; time < 2; time += 1) assert.equal((await resize(name, GROWN)).sizeBytes, GROWN);
      const grown = await roomMib(name);
      assert.ok(grown >= before + 40, `${before} MiB, then ${grown} MiB`);
      const small = await refusal(resize(name, 40 * MIB));
      assertRefusal(small, { code: 'FAILED_PRECONDITION', reason: 'SHRINK_REFUSED' });
      await rig.detach(name);
      assert.ok((await stat(path)).size >= GROWN);
      const again = await rig.attach(name, whole);
      assert.deepEqual([again.sizeBytes, again.formatted], [GROWN, false]);
      assert.deepEqual([await rig.guest(`cat /mnt/${name}/f`), await roomMib(name)], ['kept\n', grown]);
      await rig.detach(name);
      assert.deepEqual(await rig.left(), NOTHING_LEFT);
    });
  }

  await it('qcow2 and xfs grow as well', async () => {
    const path = `${rig.daemon.volumeDir}/q.qcow2`;
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', path, '400M']);
    await rig.attach('q', { qcow2File: { path }, mount: mountAt('/mnt/q', 'xfs') });
    const before = await roomMib('q');
    await resize('q', 500 * MIB);
    assert.ok((await roomMib('q')) >= before + 80);
    await rig.detach('q');
  });

  await it('what cannot grow is refused before anything has', async () => {
    const path = await rig.daemon.rawFile('sealed.raw', 48 * MIB);
    const spec = { rawFile: { path }, ...guestLuks2({ ephemeralKey: {}, integrity: true }) };
    await rig.attach('sealed', spec);
    const integrity = await refusal(resize('sealed', GROWN));
    assertRefusal(integrity, { code: 'UNIMPLEMENTED', reason: 'LUKS_RESIZE_UNSUPPORTED' });
    await rig.detach('sealed');
    await rig.attach('ro', { rawFile: { path: await rig.daemon.rawFile('ro.raw') }, readOnly: true });
    const readOnly = await refusal(resize('ro', GROWN));
    assertRefusal(readOnly, { code: 'FAILED_PRECONDITION', reason: 'VOLUME_READ_ONLY' });
    await rig.detach('ro');
    assert.equal((await stat(path)).size, 48 * MIB);
    await truncate(path, 0);
  });
});
