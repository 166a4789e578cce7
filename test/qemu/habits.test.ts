import assert from 'node:assert/strict';
import { open, stat, truncate } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import type { Mount } from '../../src/grpc/generated/qshim/v1/Mount.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { TestDaemon, call } from '../support/daemon.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const MIB = 1024 * 1024;
const SECTOR = 512;
const skip = await realVmSkipReason();

/** Writes a partition table of the old kind (MBR) with one Linux partition that begins at the first MiB. */
async function partition(path: string, sectors: number): Promise<void> {
  const table = Buffer.alloc(SECTOR);
  const entry = 446;
  table.writeUInt8(0x83, entry + 4);
  table.writeUInt32LE(MIB / SECTOR, entry + 8);
  table.writeUInt32LE(sectors, entry + 12);
  table.writeUInt16LE(0xaa55, 510);
  await using file = await open(path, 'r+');
  await file.write(table, 0, SECTOR, 0);
}

await describe('what people are used to from machines', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: {} });
  });
  after(() => daemon[Symbol.asyncDispose]());

  const guest = (script: string): Promise<string> => daemon.client.guest('vm', script);
  const attach = (volumeId: string, path: string, mount?: Mount): Promise<Volume__Output> =>
    daemon.client.attach({
      sandboxId: 'vm',
      volumeId,
      spec: { rawFile: { path }, ...(mount === undefined ? {} : { mount }) },
    });
  const detach = (volumeId: string): Promise<Volume__Output> => daemon.client.detach({ sandboxId: 'vm', volumeId });

  await it('a partition of the disk is mounted, and only one that there is; it keeps its size when the disk grows', async () => {
    const path = await daemon.rawFile('parted.raw', 40 * MIB);
    await partition(path, (24 * MIB) / SECTOR);
    const bare = await attach('p', path);
    await guest(`mkfs.ext4 -q ${bare.guestDevice}1`);
    await detach('p');
    const mount = { fsType: 'ext4', mountPoint: '/mnt/p', partition: 1 };
    const none = await refusal(attach('p', path, { ...mount, partition: 2 }));
    assertRefusal(none, { code: 'FAILED_PRECONDITION', reason: 'GUEST_PARTITION_NOT_FOUND' });
    const whole = await refusal(attach('p', path, { ...mount, partition: 0 }));
    assertRefusal(whole, { code: 'FAILED_PRECONDITION', reason: 'GUEST_DISK_NOT_EMPTY' });
    const attached = await attach('p', path, mount);
    assert.equal(attached.spec?.mount?.partition, 1);
    assert.ok(attached.evidence.includes('guest-mount'));
    assert.match(await guest('cat /proc/mounts'), new RegExp(`^${attached.guestDevice}1 /mnt/p ext4 `, 'm'));
    await guest('echo kept > /mnt/p/f; sync');
    // A repeat finds it mounted as asked.
    assert.equal((await attach('p', path, mount)).generation, attached.generation);
    await truncate(path, 64 * MIB);
    const grown = await call<Volume__Output>((done) =>
      daemon.client.volumes.resize({ sandboxId: 'vm', volumeId: 'p' }, done),
    );
    assert.equal(grown.sizeBytes, 64 * MIB);
    assert.equal((await stat(path)).size, 64 * MIB);
    assert.equal((await guest('cat /mnt/p/f; df -P -m /mnt/p | awk "END { print (\\$2 < 24) }"')).trim(), 'kept\n1');
    await detach('p');
    assert.doesNotMatch(await guest('cat /proc/mounts'), /\/mnt\/p /);
  });

  await it('what cannot be asked of a mount together is refused before anything is done', async () => {
    const path = await daemon.rawFile('refused.raw');
    const ext4 = { fsType: 'ext4', mountPoint: '/mnt/r' };
    const mounts: readonly Mount[] = [
      { ...ext4, partition: 1, format: 'FORMAT_IF_EMPTY' },
      { ...ext4, partition: 129 },
      { ...ext4, fsType: 'xfs', fsck: 'FSCK_FULL' },
    ];
    for (const mount of mounts) {
      assertRefusal(await refusal(attach('r', path, mount)), { code: 'INVALID_ARGUMENT', reason: 'INVALID_FIELD' });
    }
  });

  await it('fsck before the mount: mends what it can, and what it cannot is not mounted', async () => {
    const path = await daemon.rawFile('checked.raw', 32 * MIB);
    const mount: Mount = { fsType: 'ext4', mountPoint: '/mnt/c', format: 'FORMAT_IF_EMPTY', fsck: 'FSCK_REPAIR' };
    assert.equal((await attach('c', path, mount)).formatted, true);
    await guest('echo kept > /mnt/c/f');
    await detach('c');
    const zeroed = async (what: string): Promise<void> => {
      const { guestDevice } = await attach('c', path);
      await guest(`
        d=${guestDevice}
        n=$(dumpe2fs $d 2> /dev/null | sed -n 's/.*${what} at \\([0-9]*\\).*/\\1/p' | head -n 1)
        b=$(dumpe2fs -h $d 2> /dev/null | sed -n 's/^Block size: *//p')
        dd if=/dev/zero of=$d bs=$b seek=$n count=1 conv=fsync 2> /dev/null`);
      await detach('c');
    };
    await zeroed('Block bitmap');
    await attach('c', path, { ...mount, fsck: 'FSCK_FULL' });
    assert.equal(await guest('cat /mnt/c/f'), 'kept\n');
    assert.match(await daemon.log(), /"found":"repaired","msg":"fsck before mount"/);
    await detach('c');
    await zeroed('Inode table');
    const lost = await refusal(attach('c', path, { ...mount, fsck: 'FSCK_FULL' }));
    assertRefusal(lost, { code: 'FAILED_PRECONDITION', reason: 'GUEST_FSCK_FAILED' });
    assert.doesNotMatch(await guest('cat /proc/mounts'), /\/mnt\/c /);
    assert.equal((await daemon.client.getVolume('vm', 'c')).state, 'VOLUME_STATE_REMOVED');
  });

  await it('a paused guest stands still, and goes on as it was', async () => {
    await guest('(while :; do cat /proc/uptime > /tmp/beat; sleep 0.1; done) > /dev/null 2>&1 &');
    assert.equal((await daemon.client.pauseSandbox('vm')).runState, 'paused');
    assert.equal((await daemon.client.getSandbox('vm')).runState, 'paused');
    assert.equal((await daemon.client.resumeSandbox('vm')).runState, 'running');
    const first = await guest('cat /tmp/beat');
    assert.notEqual(await guest('sleep 1; cat /tmp/beat'), first);
  });

  await it('a reboot is a new boot of the guest, asked for or by force; volumes stay, their mounts do not', async () => {
    const path = await daemon.rawFile('rebooted.raw');
    const mount: Mount = { fsType: 'ext4', mountPoint: '/mnt/b', format: 'FORMAT_IF_EMPTY' };
    await attach('b', path, mount);
    await guest('echo kept > /mnt/b/f');
    const boot = (): Promise<string> => guest('cat /proc/sys/kernel/random/boot_id');
    const boots = [await boot()];
    for (const force of [false, true]) {
      const rebooted = await daemon.client.rebootSandbox({ sandboxId: 'vm', force, gracefulTimeoutMs: 120_000 });
      assert.deepEqual([rebooted.runState, rebooted.agentReady], ['running', true]);
      boots.push(await boot());
    }
    assert.equal(new Set(boots).size, 3);
    const left = await daemon.client.getVolume('vm', 'b');
    assert.equal(left.state, 'VOLUME_STATE_ATTACHED');
    assert.ok(!left.evidence.includes('guest-mount'));
    assertRefusal(await refusal(attach('b', path, mount)), {
      code: 'FAILED_PRECONDITION',
      reason: 'VOLUME_NOT_MOUNTED',
    });
    await detach('b');
    // The guest was asked before the first reboot: it has written what it had.
    await attach('b', path, mount);
    assert.equal(await guest('cat /mnt/b/f'), 'kept\n');
  });

  await it('a sandbox that was stopped starts again', async () => {
    const { qemuPid, spec } = await daemon.client.getSandbox('vm');
    await daemon.client.stopSandbox({ sandboxId: 'vm' });
    const started = await daemon.client.startSandbox('vm');
    assert.deepEqual([started.state, started.spec, started.volumesInUse], ['SANDBOX_STATE_RUNNING', spec, 0]);
    assert.notEqual(started.qemuPid, qemuPid);
    assert.equal(await guest('echo $((6 * 7))'), '42\n');
    const path = await daemon.rawFile('again.raw');
    assert.equal((await attach('again', path)).state, 'VOLUME_STATE_ATTACHED');
  });
});
