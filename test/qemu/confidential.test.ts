import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { ensureCommands, missingCommands } from '../../scripts/lib/packages.ts';
import type { GuestLuks2 } from '../../src/grpc/generated/qshim/v1/GuestLuks2.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { TestDaemon } from '../support/daemon.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { qemuInventory } from '../support/leaks.ts';
import { driverEvidence } from '../support/trial.ts';
import { until } from '../support/until.ts';

/** Encrypted volumes from the caller to the guest and back. All their cases: `npm run test:confidential`. */

const isRoot = process.getuid?.() === 0;
const noTools = !isRoot && missingCommands(['cryptsetup']).length > 0 ? 'cryptsetup is not installed' : undefined;
const skip = (await realVmSkipReason()) || noTools;
const MIB = 1024 * 1024;
/** With the bytes that a shell or a text file would lose. */
const KEY = Buffer.concat([Buffer.from([0, 10, 13, 255, 39, 34, 36]), randomBytes(32), Buffer.from([10])]);

const EVIDENCE = [await driverEvidence(), 'guest-agent', 'guest-luks', 'guest-mount'];
/** Whether a disk was announced depends on how soon after the start it came. */
const withoutUevent = (evidence: readonly string[]): readonly string[] =>
  evidence.filter((each) => each !== 'guest-uevent');

await describe('encrypted volumes', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    await ensureCommands(['cryptsetup']);
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
  });
  after(() => daemon[Symbol.asyncDispose]());

  const attach = async (volumeId: string, spec: VolumeSpec): Promise<Volume__Output> =>
    await daemon.client.attach({ sandboxId: 'vm', volumeId, spec });
  const detach = async (volumeId: string): Promise<Volume__Output> =>
    await daemon.client.detach({ sandboxId: 'vm', volumeId });
  const mountAt = (mountPoint: string): NonNullable<VolumeSpec['mount']> => ({
    fsType: 'ext4',
    mountPoint,
    options: [],
    format: 'FORMAT_IF_EMPTY',
  });
  const inGuest = (guestLuks2: GuestLuks2): Pick<VolumeSpec, 'encryption'> => ({ encryption: { guestLuks2 } });

  await it('a confidential volume keeps its bytes over detach, and a daemon that comes back needs no key', async () => {
    const file = await daemon.keyFile('safe', KEY);
    const path = await daemon.rawFile('safe.raw', 48 * MIB);
    const spec = {
      rawFile: { path },
      mount: mountAt('/mnt/safe'),
      ...inGuest({ providedKey: { file }, mode: 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY' }),
    };
    const created = await attach('safe', spec);
    const { uuid, ...view } = created.encryption ?? { uuid: '' };
    assert.deepEqual(view, {
      format: 'luks2',
      cipher: 'aes-xts-plain64',
      sectorSize: 4096,
      integrity: false,
      keySlots: 1,
      created: true,
      mappedDevice: '/dev/mapper/safe-crypt',
    });
    assert.deepEqual(withoutUevent(created.evidence), EVIDENCE);
    assert.equal(created.formatted, true);
    await daemon.client.guest('vm', 'echo kept > /mnt/safe/f; sync');

    const { qemuPid, stateDir } = await daemon.client.getSandbox('vm');
    await daemon.kill('SIGKILL');
    await rm(file);
    daemon = await TestDaemon.start({ directory: daemon.directory });
    await until('the agent', async () => (await daemon.client.getSandbox('vm')).agentReady);
    const adopted = await daemon.client.getVolume('vm', 'safe');
    assert.equal(adopted.state, 'VOLUME_STATE_ATTACHED');
    assert.deepEqual(adopted.encryption, created.encryption);
    assert.equal((await attach('safe', spec)).generation, created.generation, 'the same Attach again');
    assert.equal((await detach('safe')).state, 'VOLUME_STATE_REMOVED');
    assert.equal(await daemon.client.guest('vm', 'ls /dev/mapper; grep safe /proc/mounts || true'), 'control\n');
    assert.deepEqual((await qemuInventory(stateDir, qemuPid)).blockNodes, []);

    // The host's cryptsetup agrees on what it is.
    const dump = await execa('cryptsetup', ['luksDump', path]);
    for (const line of [/Version:\s+2/, /cipher: aes-xts-plain64/, /sector: 4096/, new RegExp(`UUID:\\s+${uuid}`)]) {
      assert.match(dump.stdout, line);
    }

    // The key is away: its source's reason, and nothing was begun.
    const missing = await refusal(attach('safe', spec));
    assertRefusal(missing, { code: 'NOT_FOUND', reason: 'KEY_NOT_FOUND' });
    await daemon.keyFile('safe', randomBytes(40));
    const wrong = await refusal(attach('safe', spec));
    assertRefusal(wrong, { code: 'FAILED_PRECONDITION', reason: 'LUKS_WRONG_KEY' });
    assert.equal((await daemon.client.getVolume('vm', 'safe')).state, 'VOLUME_STATE_REMOVED');
    assert.deepEqual((await qemuInventory(stateDir, qemuPid)).blockNodes, []);

    await writeFile(file, KEY);
    const other = { providedKey: { file }, uuid: '00000000-0000-4000-8000-000000000000' };
    const swapped = await refusal(attach('safe', { ...spec, ...inGuest(other) }));
    assertRefusal(swapped, { code: 'FAILED_PRECONDITION', reason: 'LUKS_DEVICE_SWAPPED' });
    const again = await attach('safe', { ...spec, ...inGuest({ providedKey: { file }, uuid }) });
    assert.deepEqual([again.encryption?.created, again.formatted], [false, false]);
    assert.equal(await daemon.client.guest('vm', 'cat /mnt/safe/f'), 'kept\n');
    await detach('safe');
  });

  await it('an ephemeral volume opens again within one boot, with integrity and sectors as asked', async () => {
    const path = await daemon.rawFile('scratch.raw', 48 * MIB);
    const guestLuks2: GuestLuks2 = { ephemeralKey: {}, mode: 'LUKS_MODE_OPEN_OR_CREATE_IF_EMPTY', sectorSize: 512 };
    const spec = { rawFile: { path }, mount: mountAt('/mnt/scratch'), ...inGuest(guestLuks2) };
    const created = await attach('scratch', spec);
    assert.deepEqual([created.encryption?.created, created.encryption?.sectorSize], [true, 512]);
    await daemon.client.guest('vm', 'echo kept > /mnt/scratch/f');
    await detach('scratch');
    const again = await attach('scratch', spec);
    assert.deepEqual([again.encryption?.created, again.formatted], [false, false]);
    assert.equal(await daemon.client.guest('vm', 'cat /mnt/scratch/f'), 'kept\n');
    // In use: refused, and still open.
    await daemon.client.guest('vm', 'sleep 300 < /mnt/scratch/f > /dev/null 2>&1 & echo $! > /tmp/holder');
    const busy = await refusal(detach('scratch'));
    assertRefusal(busy, { code: 'FAILED_PRECONDITION', reason: 'VOLUME_BUSY' });
    const kept = await daemon.client.getVolume('vm', 'scratch');
    assert.deepEqual(withoutUevent(kept.evidence), EVIDENCE);
    await daemon.client.guest('vm', 'pid=$(cat /tmp/holder); kill $pid; while [ -e /proc/$pid ]; do sleep 0.05; done');
    await detach('scratch');
  });

  await it('a volume without a mount is a mapping', async () => {
    const path = await daemon.rawFile('bare.raw', 32 * MIB);
    const spec = { rawFile: { path }, ...inGuest({ ephemeralKey: {}, mode: 'LUKS_MODE_CREATE', integrity: true }) };
    const created = await attach('bare', spec);
    assert.equal(created.encryption?.integrity, true);
    const device = created.encryption.mappedDevice;
    await daemon.client.guest('vm', `dd if=/dev/urandom of=${device} bs=65536 count=4 conv=fsync 2> /dev/null`);
    await detach('bare');
    const again = await refusal(attach('bare', spec));
    assertRefusal(again, { code: 'FAILED_PRECONDITION', reason: 'GUEST_DISK_NOT_EMPTY' });
  });

  await it('a host_luks image is made, opened and refused as it should be; QEMU keeps no secret', async () => {
    const { qemuPid, stateDir } = await daemon.client.getSandbox('vm');
    const file = await daemon.keyFile('at-rest', 'correct horse');
    const path = await daemon.rawFile('at-rest.raw', 24 * MIB);
    const hostLuks = { key: { file }, format: 'FORMAT_IF_EMPTY' as const, iterationMs: 50 };
    const spec = { rawFile: { path }, mount: mountAt('/mnt/rest'), encryption: { hostLuks } };
    const created = await attach('rest', spec);
    const { uuid, ...view } = created.encryption ?? { uuid: '' };
    assert.deepEqual(view, {
      format: 'luks1',
      cipher: 'aes-xts-plain64',
      sectorSize: 512,
      integrity: false,
      keySlots: 1,
      created: true,
      mappedDevice: '',
    });
    assert.equal(created.sizeBytes, 24 * MIB - 2_068_480);
    assert.deepEqual(
      (await qemuInventory(stateDir, qemuPid)).objects.filter((name) => name.startsWith('vol-')),
      [],
    );
    await daemon.client.guest('vm', 'echo kept > /mnt/rest/f; sync');

    await daemon.kill('SIGKILL');
    await rm(file);
    daemon = await TestDaemon.start({ directory: daemon.directory });
    await until('the agent', async () => (await daemon.client.getSandbox('vm')).agentReady);
    const adopted = await daemon.client.getVolume('vm', 'rest');
    assert.deepEqual([adopted.state, adopted.encryption], ['VOLUME_STATE_ATTACHED', created.encryption]);
    await detach('rest');
    assert.deepEqual((await qemuInventory(stateDir, qemuPid)).blockNodes, []);
    const info = JSON.parse((await execa('qemu-img', ['info', '--output=json', path])).stdout) as {
      format: string;
      'format-specific': { data: { uuid: string; 'cipher-alg': string } };
    };
    const { data } = info['format-specific'];
    assert.deepEqual([info.format, data.uuid, data['cipher-alg']], ['luks', uuid, 'aes-256']);

    await daemon.keyFile('at-rest', 'another');
    const wrong = await refusal(attach('rest', spec));
    assertRefusal(wrong, { code: 'FAILED_PRECONDITION', reason: 'LUKS_WRONG_KEY' });
    await daemon.keyFile('at-rest', Buffer.from([255, 0, 1]));
    const binary = await refusal(attach('rest', spec));
    assertRefusal(binary, { code: 'FAILED_PRECONDITION', reason: 'KEY_NOT_TEXT' });
    assert.deepEqual((await qemuInventory(stateDir, qemuPid)).blockNodes, []);
    await daemon.keyFile('at-rest', 'correct horse');
    const again = await attach('rest', { ...spec, encryption: { hostLuks: { key: { file }, uuid } } });
    assert.deepEqual([again.encryption?.created, again.formatted], [false, false]);
    assert.equal(await daemon.client.guest('vm', 'cat /mnt/rest/f'), 'kept\n');
    await detach('rest');
  });
});
