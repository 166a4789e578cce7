import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent } from '../../src/guest/agent.ts';
import { buildImage, debsOfGuest, guestDirectory, type Manifest } from '../../scripts/guest/build.ts';
import { demandModules, modulesOfSomeKernels } from '../../scripts/guest/contents.ts';
import { parseModulesDep } from '../../scripts/guest/tree.ts';
import { bareQemuMissing, startBareQemu, type BareQemu } from '../support/bare-qemu.ts';
import { until } from '../support/until.ts';
import { INITRD, KERNEL } from '../support/guest-image.ts';

const manifestPath = join(guestDirectory, 'manifest.json');
const skip = bareQemuMissing() || (existsSync(manifestPath) ? false : 'the reference guest is missing: npm run guest');
const BOOT_TIMEOUT_MS = 180_000;
const STEP_TIMEOUT_MS = 90_000;
const DISK_BYTES = 320 * 1024 * 1024;

interface Guest extends AsyncDisposable {
  readonly qemu: BareQemu;
  readonly agent: GuestAgent;
  /** Runs a shell script in the guest and returns its output; fails the test when the script fails. */
  run(script: string): Promise<string>;
}

/** Boots the image with a bridge for hot-plugging and waits for its agent. */
async function startGuest(parameters = ''): Promise<Guest> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-image-'));
  stack.defer(() => rm(directory, { recursive: true }));
  const path = join(directory, 'agent.sock');
  const qemu = stack.use(
    await startBareQemu([
      ...['-machine', 'q35,accel=tcg', '-cpu', 'max', '-m', '512', '-smp', '2', '-no-user-config'],
      ...['-kernel', KERNEL, '-initrd', INITRD],
      ...['-append', `console=ttyS0 quiet panic=-1 cryptomgr.notests ${parameters}`],
      ...['-device', 'pci-bridge,id=br0,chassis_nr=1,shpc=off,io-reserve=4k,mem-reserve=1m,pref64-reserve=1m'],
      ...['-device', 'virtio-serial-pci', '-chardev', `socket,id=agent,path=${path},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
    ]),
  );
  const agent = stack.use(new GuestAgent({ path, log: silentLogger(), requestTimeoutMs: STEP_TIMEOUT_MS }));
  await agent.waitReady({ timeoutMs: BOOT_TIMEOUT_MS });
  const run = async (script: string): Promise<string> => {
    const done = await agent.exec({ path: '/bin/sh', args: ['-ec', script], timeoutMs: STEP_TIMEOUT_MS });
    assert.equal(done.exitCode, 0, `${script}\n${done.stdout.toString()}${done.stderr.toString()}`);
    return done.stdout.toString();
  };
  const owned = stack.move();
  return { qemu, agent, run, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Hot-plugs an empty disk at the bridge's slot and waits until the guest has it; returns its /dev name. */
async function plugDisk({ qemu, agent }: Guest, id: string, slot: number): Promise<string> {
  const filename = join(qemu.directory, `${id}.img`);
  await writeFile(filename, '');
  await truncate(filename, DISK_BYTES);
  await qemu.qmp.run('blockdev-add', { 'node-name': `node-${id}`, driver: 'file', filename });
  await qemu.qmp.run('device_add', {
    driver: 'virtio-blk-pci',
    id,
    bus: 'br0',
    addr: slot.toString(16),
    drive: `node-${id}`,
    serial: id,
  });
  return await until(
    `the guest lists ${id} at slot ${slot}`,
    async () => (await agent.disks()).find(({ pci }) => pci?.slot === slot && pci.bus !== 0)?.name,
    STEP_TIMEOUT_MS,
  );
}

describe('the reference guest as files', { skip }, () => {
  it('two builds from the same packages give the bytes of the manifest', async () => {
    const manifest = JSON.parse(await readFile(manifestPath, 'utf8')) as Manifest;
    for (let round = 0; round < 2; round += 1) {
      const directory = await mkdtemp(join(tmpdir(), 'qshim-image-'));
      try {
        const built = await buildImage(manifest.debs, debsOfGuest(), directory);
        assert.deepEqual(built, { kernelVersion: manifest.kernelVersion, files: manifest.files });
      } finally {
        await rm(directory, { recursive: true });
      }
    }
  });

  it('modules.dep gives the loading order, dependencies first', () => {
    const needs = parseModulesDep('kernel/a/top-one.ko: kernel/a/mid.ko kernel/b/base.ko\nkernel/b/base.ko:\n');
    assert.deepEqual(needs.get('top_one'), ['kernel/b/base.ko', 'kernel/a/mid.ko', 'kernel/a/top-one.ko']);
    assert.deepEqual(needs.get('base'), ['kernel/b/base.ko']);
  });

  it('modules that are compressed keep their names', () => {
    const needs = parseModulesDep('kernel/a/top-one.ko.xz: kernel/b/base.ko.zst\nkernel/b/base.ko.zst:\n');
    assert.deepEqual(needs.get('top_one'), ['kernel/b/base.ko.zst', 'kernel/a/top-one.ko.xz']);
  });
});

describe('the reference guest running', { skip }, () => {
  let guest: Guest;
  before(async () => {
    guest = await startGuest('qshim.hostname=box-7');
  });
  after(() => guest[Symbol.asyncDispose]());

  // busybox sh prefers its own applets to programs of that name: those are called by path.
  it('has the tools that mount, format, grow and encrypt', async () => {
    const output = await guest.run(`
      mkfs.ext4 -V; mkfs.xfs -V; resize2fs 2>&1 | head -1; tune2fs 2>&1 | head -1; dumpe2fs -V; e2fsck -V
      xfs_growfs -V; xfs_repair -V; cryptsetup --version; dmsetup --version; blkid -V; wipefs -V; /sbin/blockdev -V; lsblk -V
      /sbin/modprobe -V; flock /run true; test -x /sbin/shutdown; readlink /sbin/modprobe`);
    assert.match(output, /cryptsetup 2\./);
    assert.match(output, /util-linux/);
    assert.match(output, /bin\/kmod/);
  });

  it('loads every module of the image on demand', async () => {
    await guest.run(`/sbin/modprobe -a ${demandModules.join(' ')}`);
    // Debian 12's kernel has them all; of another, named by QSHIM_KERNEL, it is not said which.
    if (process.env['QSHIM_KERNEL'] === undefined)
      await guest.run(`/sbin/modprobe -a ${modulesOfSomeKernels.join(' ')}`);
    const builtIn = (await guest.run('cat "/lib/modules/$(uname -r)/modules.builtin"')).split('\n');
    const there = builtIn.map((path) => basename(path, '.ko').replaceAll('-', '_'));
    const loaded = [...(await guest.run('cut -d" " -f1 /proc/modules')).split('\n'), ...there];
    for (const name of ['xfs', 'dm_crypt', 'dm_integrity', 'overlay', 'algif_skcipher', 'virtio_rng']) {
      assert.ok(loaded.includes(name), `${name} is not among ${loaded.join(' ')}`);
    }
  });

  it('offers what containers need: pivot_root, cgroup controllers, devpts, a reaping PID 1', async () => {
    await guest.run(`unshare -m sh -ec 'mkdir /run/new; mount -t tmpfs tmpfs /run/new; mkdir /run/new/old; cd /run/new
      /sbin/pivot_root . old; [ -d /old/proc/1 ]'`);
    const controllers = (await guest.run('cat /sys/fs/cgroup/cgroup.subtree_control')).trim().split(' ');
    for (const name of ['cpu', 'memory', 'pids', 'io']) assert.ok(controllers.includes(name), controllers.join(' '));
    await guest.run('test -c /dev/ptmx; test -d /dev/pts; test -d /dev/shm; test -e /dev/stdin');
    await guest.run('sh -c "sleep 0.1 & " > /dev/null 2>&1; sleep 1; ! grep -l "^State:.Z" /proc/[0-9]*/status');
    assert.equal((await guest.run('hostname')).trim(), 'box-7');
  });

  it('sees hot-plugged disks, formats, encrypts and lets go of them', async () => {
    const ext4 = await plugDisk(guest, 'ext4', 1);
    const xfs = await plugDisk(guest, 'xfs', 10);
    const luks = await plugDisk(guest, 'luks', 31);
    assert.equal((await guest.run(`cat /sys/block/${ext4.replace('/dev/', '')}/serial`)).trim(), 'ext4');
    await guest.run(
      `blkid -p ${ext4} && exit 1; mkfs.ext4 -q ${ext4}; mkdir -p /mnt/e; mount ${ext4} /mnt/e; umount /mnt/e`,
    );
    assert.match(await guest.run(`blkid -p -o value -s TYPE ${ext4}`), /ext4/);
    await guest.run(
      `mkfs.xfs -q ${xfs}; mkdir -p /mnt/x; mount -t xfs ${xfs} /mnt/x; xfs_growfs /mnt/x; umount /mnt/x`,
    );
    const pbkdf = '--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key';
    await guest.run(`echo secret > /run/key
      cryptsetup luksFormat -q --type luks2 ${pbkdf} ${luks}; cryptsetup open --key-file /run/key ${luks} plain
      mkfs.ext4 -q /dev/mapper/plain; mount /dev/mapper/plain /mnt/e; umount /mnt/e; cryptsetup close plain`);
    const table = await guest.run(`
      cryptsetup luksFormat -q --type luks2 --integrity hmac-sha256 --integrity-no-wipe ${pbkdf} ${luks}
      cryptsetup open --integrity-no-journal --key-file /run/key ${luks} sealed
      dmsetup table; dd if=/dev/zero of=/dev/mapper/sealed bs=1M count=1 oflag=direct 2>/dev/null; cryptsetup close sealed`);
    assert.match(table, /authenc\(hmac\(sha256\),xts\(aes\)\)/);
    for (const id of ['ext4', 'xfs', 'luks']) {
      using gone = guest.qemu.qmp.listen('DEVICE_DELETED', (event) => event.data.device === id);
      await guest.qemu.qmp.run('device_del', { id });
      await gone.next({ timeoutMs: STEP_TIMEOUT_MS });
    }
  });

  it('reboots when the agent asks, and powers off at the power button', async () => {
    const { agent, qemu } = guest;
    {
      using reset = qemu.qmp.listen('RESET', (event) => event.data.guest);
      await agent.shutdown('reboot');
      await reset.next({ timeoutMs: STEP_TIMEOUT_MS });
    }
    await agent.waitReady({ timeoutMs: BOOT_TIMEOUT_MS });
    // The power button's driver and acpid come up just after the agent.
    await guest.run('until pidof acpid; do sleep 0.1; done');
    using shutdown = qemu.qmp.listen('SHUTDOWN', (event) => event.data.guest);
    await qemu.qmp.run('system_powerdown');
    await shutdown.next({ timeoutMs: STEP_TIMEOUT_MS });
  });
});

describe('the reference guest without the disk driver', { skip }, () => {
  it('qshim.no_virtio_blk=1 leaves virtio_blk out, and the agent powers the guest off', async () => {
    await using guest = await startGuest('qshim.no_virtio_blk=1');
    const loaded = await guest.run('cut -d" " -f1 /proc/modules');
    assert.ok(!loaded.includes('virtio_blk'), loaded);
    assert.ok(loaded.includes('virtio_console'), loaded);
    using shutdown = guest.qemu.qmp.listen('SHUTDOWN', (event) => event.data.guest);
    await guest.agent.shutdown('powerdown');
    await shutdown.next({ timeoutMs: STEP_TIMEOUT_MS });
  });
});
