import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { ensureCommands } from '../../scripts/lib/packages.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { ConfidentialRig, guestLuks2, hostLuks, MIB, mountAt, NOTHING_LEFT } from '../support/confidential.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { makeImage } from '../support/luks-tool.ts';

const skip = await realVmSkipReason();
const PATTERN = 'qshim pattern, 31 bytes a line.\n';
const PATTERN_MIB = 64;
const WINDOW_BYTES = 16;

/** True when any 16 bytes of the pattern, at any alignment, are in the file. */
async function holdsPattern(path: string): Promise<boolean> {
  const twice = Buffer.from(PATTERN.repeat(2));
  const windows = Array.from({ length: PATTERN.length }, (_, at) => twice.subarray(at, at + WINDOW_BYTES));
  let tail = Buffer.alloc(0);
  for await (const chunk of createReadStream(path, { highWaterMark: 4 * MIB })) {
    const bytes = Buffer.concat([tail, chunk as Buffer]);
    if (windows.some((window) => bytes.includes(window))) return true;
    tail = bytes.subarray(-WINDOW_BYTES);
  }
  return false;
}

await describe('what is on the disk', { skip }, async () => {
  let rig: ConfidentialRig;
  const words = randomBytes(24).toString('hex');
  before(async () => {
    await ensureCommands(['cryptsetup', 'qemu-img']);
    rig = await ConfidentialRig.start();
    await rig.daemon.keyFile('key', words);
  });
  after(() => rig[Symbol.asyncDispose]());
  const key = (): { readonly file: string } => ({ file: `${rig.daemon.keyDir}/key` });

  const kinds: readonly (readonly [string, boolean, () => Partial<VolumeSpec>])[] = [
    ['plain', true, () => ({})],
    ['host', false, () => hostLuks({ key: key() })],
    ['guest', false, () => guestLuks2({ providedKey: key() })],
  ];
  for (const [name, found, spec] of kinds) {
    await it(`${name}: ${PATTERN_MIB} MiB of a pattern ${found ? 'are found, so the search works' : 'are nowhere in it'}`, async () => {
      const path = await rig.daemon.rawFile(`${name}.raw`, 160 * MIB);
      await rig.attach(name, { rawFile: { path }, mount: mountAt(`/mnt/${name}`), ...spec() });
      await rig.guest(`yes '${PATTERN.trimEnd()}' | head -c ${PATTERN_MIB * MIB} > /mnt/${name}/f; sync`);
      assert.equal(await rig.guest(`stat -c %s /mnt/${name}/f`), `${PATTERN_MIB * MIB}\n`);
      await rig.detach(name);
      assert.equal(await holdsPattern(path), found);
    });
  }

  await it("the host's tools agree on both formats", async () => {
    const info = await execa('qemu-img', ['info', '--output=json', `${rig.daemon.volumeDir}/host.raw`]);
    assert.equal((JSON.parse(info.stdout) as { format: string }).format, 'luks');
    const dumps = await Promise.all(
      ['host', 'guest'].map(
        async (name) => await execa('cryptsetup', ['luksDump', `${rig.daemon.volumeDir}/${name}.raw`]),
      ),
    );
    assert.match(dumps[0]?.stdout ?? '', /Version:\s+1\n[^]*Cipher mode:\s+xts-plain64/);
    assert.match(dumps[1]?.stdout ?? '', /Version:\s+2\n[^]*cipher: aes-xts-plain64\n\s+sector: 4096/);
  });

  await it("an image that qemu-img made opens here; one made here opens with the guest's cryptsetup", async () => {
    const path = `${rig.daemon.volumeDir}/made.raw`;
    await makeImage(['--object', `secret,id=k,file=${key().file}`, '-o', 'key-secret=k,iter-time=20', path, '24M']);
    const spec = { rawFile: { path }, mount: mountAt('/mnt/made'), ...hostLuks({ key: key() }) };
    const attached = await rig.attach('made', spec);
    assert.deepEqual([attached.encryption?.created, attached.formatted, attached.sizeBytes], [false, true, 24 * MIB]);
    await rig.guest('echo interchange > /mnt/made/f');
    await rig.detach('made');
    const raw = await rig.attach('made', { rawFile: { path } });
    const script = `modprobe dm-crypt; cryptsetup open --type luks1 --key-file=- ${raw.guestDevice} shown &&
      mkdir -p /mnt/shown && mount -t ext4 /dev/mapper/shown /mnt/shown && cat /mnt/shown/f &&
      umount /mnt/shown && cryptsetup close shown`;
    assert.equal(await rig.guest(script, Buffer.from(words)), 'interchange\n');
    await rig.detach('made');
    assert.deepEqual(await rig.left(), NOTHING_LEFT);
  });

  await it('the trusted image store: there after a detach, unreadable after power-off', async () => {
    const path = await rig.daemon.rawFile('store.raw', 64 * MIB);
    const spec = { rawFile: { path }, mount: mountAt('/mnt/store'), ...guestLuks2({ ephemeralKey: {} }) };
    await rig.attach('store', spec);
    await rig.guest(`yes '${PATTERN.trimEnd()}' | head -c ${8 * MIB} > /mnt/store/f; sync`);
    await rig.detach('store');
    await rig.attach('store', spec);
    assert.equal(await rig.guest('head -n 1 /mnt/store/f'), PATTERN);
    await rig.detach('store');
    assert.equal(await holdsPattern(path), false);
    await rig.daemon.client.stopSandbox({ sandboxId: 'vm', force: true });
    await rig.daemon.client.deleteSandbox('vm');
    await rig.daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
    const open = { ...spec, ...guestLuks2({ ephemeralKey: {}, mode: 'LUKS_MODE_OPEN' }) };
    assertRefusal(await refusal(rig.attach('store', open)), { code: 'FAILED_PRECONDITION', reason: 'LUKS_NO_HEADER' });
    const made = await refusal(rig.attach('store', spec));
    assertRefusal(made, { code: 'FAILED_PRECONDITION', reason: 'GUEST_DISK_NOT_EMPTY' });
    assert.deepEqual(await rig.left(), NOTHING_LEFT);
  });
});
