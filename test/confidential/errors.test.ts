import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, truncate } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import {
  ConfidentialRig,
  fileHash,
  guestLuks2,
  hostLuks,
  MIB,
  mountAt,
  NOTHING_LEFT,
  readAt,
  writeAt,
} from '../support/confidential.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const skip = await realVmSkipReason();
const OTHER_UUID = '00000000-0000-4000-8000-000000000000';
const none = (): Promise<void> => Promise.resolve();

interface Case {
  readonly what: string;
  /** How the image's copy is changed. */
  readonly damage: (path: string) => Promise<void>;
  readonly spec: () => Partial<VolumeSpec>;
  readonly code?: 'FAILED_PRECONDITION' | 'UNAVAILABLE' | 'UNIMPLEMENTED';
  readonly reason: string;
}

/** Flips a bit in every block of the data area's beginning that is not zero: tags, or ciphertext. */
async function changeBytes(path: string): Promise<void> {
  const start = 17 * MIB;
  const data = await readAt(path, start, 6 * MIB);
  for (let at = 0; at < data.length; at += 4096) {
    if (data.readUInt32LE(at) !== 0) data[at] = (data[at] ?? 0) ^ 1;
  }
  await writeAt(path, start, data);
}

await describe(
  'what goes wrong has its own reason; nothing is formatted, nothing stays attached',
  { skip },
  async () => {
    let rig: ConfidentialRig;
    before(async () => {
      rig = await ConfidentialRig.start({ config: { key_commands: 'down=/bin/false' } });
      for (const name of ['right', 'wrong']) await rig.daemon.keyFile(name, randomBytes(24).toString('hex'));
      for (const [name, spec] of [
        ['host', hostLuks({ key: key('right') })],
        ['guest', guestLuks2({ providedKey: key('right') })],
        ['sealed', guestLuks2({ providedKey: key('right'), integrity: true })],
      ] as const) {
        const path = await rig.daemon.rawFile(`${name}.raw`, 40 * MIB);
        await rig.attach(name, { rawFile: { path }, mount: mountAt(`/mnt/${name}`), ...spec });
        await rig.guest(`echo kept > /mnt/${name}/f; sync`);
        await rig.detach(name);
      }
    });
    after(() => rig[Symbol.asyncDispose]());
    const key = (name: string): { readonly file: string } => ({ file: `${rig.daemon.keyDir}/${name}` });

    /** Attaches a damaged copy of one of the images and holds the refusal against what is expected. */
    async function refuses(image: string, { what, damage, spec, code, reason }: Case): Promise<void> {
      await it(`${image}: ${what}: ${reason}`, async () => {
        const path = `${rig.daemon.volumeDir}/copy.raw`;
        await copyFile(`${rig.daemon.volumeDir}/${image}.raw`, path);
        await damage(path);
        const before = await fileHash(path);
        const seen = await refusal(rig.attach('copy', { rawFile: { path }, mount: mountAt('/mnt/copy'), ...spec() }));
        assertRefusal(seen, { code: code ?? 'FAILED_PRECONDITION', reason });
        assert.equal(await fileHash(path), before, 'nothing was written');
        assert.deepEqual(await rig.left(), NOTHING_LEFT);
      });
    }

    const host = (name = 'right'): Partial<VolumeSpec> => hostLuks({ key: key(name) });
    const guest = (name = 'right'): Partial<VolumeSpec> => guestLuks2({ providedKey: key(name) });
    const down = { command: 'down' };
    const unavailable = { code: 'UNAVAILABLE', reason: 'KEY_SOURCE_DOWN' } as const;
    for (const one of [
      { what: 'wrong key', damage: none, spec: () => host('wrong'), reason: 'LUKS_WRONG_KEY' },
      {
        what: 'damaged header',
        damage: (path: string) => writeAt(path, 208, Buffer.from('xxxx')),
        spec: host,
        reason: 'LUKS_HEADER_DAMAGED',
      },
      {
        what: 'truncated device',
        damage: (path: string) => truncate(path, MIB),
        spec: host,
        reason: 'LUKS_DEVICE_TRUNCATED',
      },
      {
        what: 'a shorter device than said',
        damage: (path: string) => truncate(path, 30 * MIB),
        spec: () => hostLuks({ key: key('right'), sizeBytes: 30 * MIB }),
        reason: 'LUKS_DEVICE_TRUNCATED',
      },
      {
        what: 'swapped device',
        damage: none,
        spec: () => hostLuks({ key: key('right'), uuid: OTHER_UUID }),
        reason: 'LUKS_DEVICE_SWAPPED',
      },
      { what: 'key source down', damage: none, spec: () => hostLuks({ key: down }), ...unavailable },
      {
        what: 'no header',
        damage: (path: string) => writeAt(path, 0, Buffer.alloc(8)),
        spec: host,
        reason: 'SOURCE_NOT_EMPTY',
      },
    ] satisfies readonly Case[]) {
      await refuses('host', one);
    }
    for (const one of [
      { what: 'wrong key', damage: none, spec: () => guest('wrong'), reason: 'LUKS_WRONG_KEY' },
      {
        what: 'damaged header',
        // The text of both copies no longer matches its checksum.
        damage: async (path: string) => {
          for (const at of [4096, 20_480]) await writeAt(path, at + 64, Buffer.from('damage'));
        },
        spec: guest,
        reason: 'LUKS_HEADER_DAMAGED',
      },
      {
        what: 'truncated device',
        damage: (path: string) => truncate(path, 30 * MIB),
        spec: guest,
        reason: 'LUKS_DEVICE_TRUNCATED',
      },
      {
        what: 'swapped device',
        damage: none,
        spec: () => guestLuks2({ providedKey: key('right'), uuid: OTHER_UUID }),
        reason: 'LUKS_DEVICE_SWAPPED',
      },
      { what: 'key source down', damage: none, spec: () => guestLuks2({ providedKey: down }), ...unavailable },
      {
        what: 'no header',
        damage: (path: string) => writeAt(path, 0, Buffer.alloc(32 * 1024)),
        spec: guest,
        reason: 'GUEST_DISK_NOT_EMPTY',
      },
    ] satisfies readonly Case[]) {
      await refuses('guest', one);
    }
    const sealed = (): Partial<VolumeSpec> => guestLuks2({ providedKey: key('right'), integrity: true });
    await refuses('sealed', {
      what: 'a changed byte is an error on read',
      damage: changeBytes,
      spec: sealed,
      reason: 'LUKS_INTEGRITY_ERROR',
    });

    await it('sealed: while it is attached, what the host has changed cannot be read, by anybody', async () => {
      const path = `${rig.daemon.volumeDir}/mapping.raw`;
      await copyFile(`${rig.daemon.volumeDir}/sealed.raw`, path);
      const read = async (): Promise<string> => {
        const { encryption } = await rig.attach('mapping', { rawFile: { path }, ...sealed() });
        const script = `dd if=${encryption?.mappedDevice ?? ''} bs=4096 skip=512 count=16 2>&1 > /dev/null || true`;
        const said = await rig.guest(script);
        await rig.detach('mapping');
        return said;
      };
      assert.match(await read(), /^16\+0 records in/m);
      await changeBytes(path);
      assert.match(await read(), /Input\/output error|I\/O error/);
      assert.deepEqual(await rig.left(), NOTHING_LEFT);
    });

    await it('a guest without dm-crypt: the attach fails, and is never plain', async () => {
      await rig.daemon.client.createSandbox({ sandboxId: 'bare', spec: { vcpus: 1 } });
      const { client } = rig.daemon;
      await client.guest(
        'bare',
        'find /lib/modules/ -name "dm-crypt*" -exec rm {} +; ! modprobe dm-crypt 2> /dev/null',
      );
      const path = await rig.daemon.rawFile('bare.raw', 32 * MIB);
      const before = await fileHash(path);
      for (const mode of ['LUKS_MODE_CREATE', 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY'] as const) {
        const spec = { rawFile: { path }, mount: mountAt('/mnt/bare'), ...guestLuks2({ ephemeralKey: {}, mode }) };
        const seen = await refusal(client.attach({ sandboxId: 'bare', volumeId: 'bare', spec }));
        assertRefusal(seen, { code: 'UNIMPLEMENTED', reason: 'GUEST_DM_CRYPT_MISSING' });
      }
      assert.deepEqual(await rig.left('bare'), NOTHING_LEFT);
      assert.equal(await fileHash(path), before);
    });
  },
);
