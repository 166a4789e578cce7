import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { call, TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

/** A real guest that uses disks, covers them, is slow or stands still: without force no disk is taken from it. */

const MIB = 1024 * 1024;
const skip = await realVmSkipReason();

await describe('detach asks a real guest', { skip }, async () => {
  let daemon: TestDaemon;
  let stateDir: string;
  before(async () => {
    daemon = await TestDaemon.start();
    stateDir = (await daemon.client.createSandbox({ sandboxId: 'vm' })).stateDir;
  });
  after(() => daemon[Symbol.asyncDispose]());

  const guest = async (script: string): Promise<string> => (await daemon.client.guest('vm', script)).trim();
  const detach = (volumeId: string, timeoutMs = 0) => daemon.client.detach({ sandboxId: 'vm', volumeId, timeoutMs });

  /** Attaches a new file; gives the guest's name of the disk. */
  async function attach(volumeId: string, more: VolumeSpec = {}): Promise<string> {
    const path = await daemon.rawFile(`${volumeId}.raw`, 64 * MIB);
    const spec = { rawFile: { path }, ...more };
    return (await daemon.client.attach({ sandboxId: 'vm', volumeId, spec })).guestDevice;
  }

  async function refusedFor(volumeId: string, reason: string, message: RegExp, timeoutMs = 0): Promise<void> {
    const seen = await refusal(detach(volumeId, timeoutMs));
    assert.equal(seen.reason, reason, seen.message);
    assert.match(seen.message, message);
    assert.match(seen.message, /force/);
    const kept = await daemon.client.getVolume('vm', volumeId);
    assert.deepEqual([kept.state, kept.cause?.reason], ['VOLUME_STATE_ATTACHED', reason]);
  }

  /** At the first time of asking. How long a guest takes is the machine's affair. */
  const removed = async (volumeId: string): Promise<void> => {
    assert.equal((await detach(volumeId, 120_000)).state, 'VOLUME_STATE_REMOVED');
  };

  await it('every use of a disk that qshim did not mount keeps it', async () => {
    const device = await attach('used');
    const away =
      'mkdir -p /mnt/n; (exec unshare -m sh -c "mount $D /mnt/n && exec sleep 601") > /dev/null 2>&1 & sleep 1';
    const uses: readonly (readonly [begin: string, end: string, message: RegExp])[] = [
      ['(exec sleep 601 <> $D) > /dev/null 2>&1 &', 'killall sleep', /sleep \(pid \d+, fd\/0\)/],
      ['mkswap $D > /dev/null && swapon $D', 'swapoff $D', /swap on \/dev\/vd/],
      ['modprobe dm_mod; dmsetup create m --table "0 2048 linear $D 0"', 'dmsetup remove m', /below dm-0/],
      [`mkfs.ext4 -q $D; ${away}`, 'killall sleep', /sleep \(pid \d+, mount-namespace\)/],
    ];
    for (const [begin, end, message] of uses) {
      await guest(`D=${device}; ${begin}`);
      await refusedFor('used', 'VOLUME_BUSY', message);
      await guest(`D=${device}; ${end}; sleep 1`);
    }
    await removed('used');
  });

  await it('a quick look tells only of disks that nobody uses: the others wait for the agent', async () => {
    const away = '(exec unshare -m sh -c "mount $D /mnt/q && exec sleep 602") > /dev/null 2>&1 & sleep 1';
    const uses = {
      opened: '(exec sleep 602 <> $D) > /dev/null 2>&1 &',
      swap: 'mkswap $D > /dev/null && swapon $D',
      mapper: 'modprobe dm_mod; dmsetup create q --table "0 2048 linear $D 0"',
      away: `mkfs.ext4 -q $D; mkdir -p /mnt/q; ${away}`,
      lazy: 'mkfs.ext4 -q $D; mkdir -p /mnt/l; mount $D /mnt/l; (cd /mnt/l; exec sleep 602) > /dev/null 2>&1 & sleep 1; umount -l /mnt/l',
      loop: 'modprobe loop; losetup /dev/loop0 $D',
      partition:
        "printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk $D > /dev/null 2>&1; sleep 1; mkfs.ext4 -q ${D}1; mkdir -p /mnt/r; mount ${D}1 /mnt/r",
      nobody: 'true',
    };
    for (const [id, use] of Object.entries(uses)) {
      const device = await attach(`q-${id}`);
      await guest(`D=${device}; ${use}`);
    }
    // Until the agent goes on, only the program that announces disks can answer.
    await guest('(sleep 1; kill -STOP $(pidof qemu-ga)) > /dev/null 2>&1 &');
    await sleep(2000);
    const answers = await Promise.all(
      Object.keys(uses).map(async (id) => {
        const answer = await detach(`q-${id}`, 4000).then(
          ({ state }) => state,
          async (error: unknown) => (await refusal(Promise.reject(error as Error))).reason,
        );
        return [id, answer];
      }),
    );
    const expected = Object.keys(uses).map((id) => [id, id === 'nobody' ? 'VOLUME_STATE_REMOVED' : 'GUEST_NOT_ASKED']);
    assert.deepEqual(answers, expected);
    await daemon.client.deleteSandbox('vm', true);
    stateDir = (await daemon.client.createSandbox({ sandboxId: 'vm' })).stateDir;
  });

  await it('a guest whose /dev or /sys is not to be seen has not let go', async () => {
    const mount = { fsType: 'ext4', mountPoint: '/mnt/node', format: 'FORMAT_IF_EMPTY' as const };
    const device = await attach('node', { mount });
    await guest(`(cd /mnt/node; exec sleep 603) > /dev/null 2>&1 & mv ${device} /dev/moved`);
    await refusedFor('node', 'VOLUME_BUSY', /sleep \(pid \d+, cwd\)/);
    await guest(`mv /dev/moved ${device}; killall sleep`);
    await removed('node');
    const plain = await attach('blind');
    await guest(`mkfs.ext4 -q ${plain} && mkdir -p /mnt/b && mount ${plain} /mnt/b && umount -l /sys`);
    await refusedFor('blind', 'GUEST_NOT_ASKED', /could not tell|sees no PCI devices/, 3000);
    await guest('mount -t sysfs sysfs /sys && umount /mnt/b');
    await removed('blind');
  });

  await it('a partition in use keeps the disk', async () => {
    const device = await attach('parts');
    await guest(`printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk ${device} > /dev/null 2>&1; sleep 1; ls ${device}1`);
    await guest(`mkfs.ext4 -q ${device}1 && mkdir -p /mnt/p && mount ${device}1 /mnt/p`);
    await refusedFor('parts', 'VOLUME_BUSY', /mounted in the guest at \/mnt\/p/);
    await guest('umount /mnt/p');
    await removed('parts');
  });

  const encryption = { guestLuks2: { ephemeralKey: {}, mode: 'LUKS_MODE_CREATE' as const } };
  for (const [volumeId, more] of [
    ['plain', {}],
    ['sealed', { encryption }],
  ] as const) {
    await it(`what is mounted over a volume stays, with its files, and the volume with it (${volumeId})`, async () => {
      const mount = { fsType: 'ext4', mountPoint: `/mnt/${volumeId}`, format: 'FORMAT_IF_EMPTY' as const };
      await attach(volumeId, { mount, ...more });
      await guest(`cd /mnt/${volumeId}; echo below > f; mount -t tmpfs mine . && cd . && echo "only copy" > $PWD/f`);
      await refusedFor(volumeId, 'VOLUME_BUSY', new RegExp(`mounted in the guest at /mnt/${volumeId}`));
      assert.equal(
        await guest(`cat /mnt/${volumeId}/f; umount /mnt/${volumeId}; cat /mnt/${volumeId}/f`),
        'only copy\nbelow',
      );
      const { evidence } = await daemon.client.getVolume('vm', volumeId);
      assert.ok(evidence.includes('guest-mount'), 'nothing was taken away');
      await removed(volumeId);
    });

    await it(`a resize whose file system the guest has unmounted has not grown it (${volumeId})`, async () => {
      const id = `${volumeId}-grows`;
      const mount = { fsType: 'ext4', mountPoint: `/mnt/${id}`, format: 'FORMAT_IF_EMPTY' as const };
      await attach(id, { mount, ...more });
      const resize = (sizeBytes: number) =>
        call((done) => daemon.client.volumes.resize({ sandboxId: 'vm', volumeId: id, sizeBytes }, done));
      await resize(96 * MIB);
      await guest(`umount /mnt/${id}`);
      assert.equal((await refusal(resize(128 * MIB))).reason, 'VOLUME_NOT_MOUNTED');
      assert.ok(!(await daemon.client.getVolume('vm', id)).evidence.includes('guest-mount'));
      await removed(id);
    });
  }

  await it('an agent that hangs says nothing, and the disk stays; so in a VM that is paused', async () => {
    const device = await attach('slow');
    await guest(`mkfs.ext4 -q ${device} && mkdir -p /mnt/s && mount ${device} /mnt/s && echo precious > /mnt/s/f`);
    await guest('(sleep 1; kill -STOP $(pidof qemu-ga); sleep 6; kill -CONT $(pidof qemu-ga)) > /dev/null 2>&1 &');
    await sleep(2000);
    await refusedFor('slow', 'GUEST_NOT_ASKED', /--force/, 1000);
    assert.equal(await guest('echo new > /mnt/s/g && sync && cat /mnt/s/f'), 'precious');
    {
      await using qmp = await QmpClient.connect({ path: `${stateDir}/spare.sock`, log: silentLogger() });
      await qmp.run('stop');
      await refusedFor('slow', 'GUEST_NOT_ASKED', /--force/, 1000);
      await qmp.run('cont');
    }
    assert.equal(await guest('cat /mnt/s/f && umount /mnt/s'), 'precious');
    await removed('slow');
  });

  await it("a job of QEMU's that keeps a disk which the guest has let go of is named", async () => {
    await attach('copied');
    const { generation } = await daemon.client.getVolume('vm', 'copied');
    // A command line tool's way: no client of ours knows these commands.
    const socket = connect(`${stateDir}/spare.sock`);
    let said = '';
    socket.on('data', (bytes: Buffer) => (said += bytes.toString()));
    const send = (execute: string, args: object = {}) =>
      socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const told = async (pattern: RegExp): Promise<void> => {
      while (!pattern.test(said)) await once(socket, 'data');
    };
    send('qmp_capabilities');
    // A node without a file: a confined QEMU sees none by its path.
    send('blockdev-add', { driver: 'null-co', 'node-name': 'target', size: 64 * MIB });
    const job = { 'job-id': 'theirs', target: 'target', sync: 'full' };
    send('blockdev-mirror', { ...job, device: `vol-${generation}-fmt` });
    await told(/BLOCK_JOB_READY/);
    const seen = await refusal(detach('copied', 5000));
    assert.deepEqual([seen.code, seen.reason], ['DEADLINE_EXCEEDED', 'QEMU_HOLDS_VOLUME'], seen.message);
    assert.match(seen.message, /block job/);
    send('block-job-cancel', { device: 'theirs', force: true });
    await told(/BLOCK_JOB_CANCELLED/);
    await removed('copied');
    send('blockdev-del', { 'node-name': 'target' });
    send('query-version');
    await told(/"micro"/);
    socket.destroy();
  });
});
