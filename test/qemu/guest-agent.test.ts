import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { GuestAgent, type ExecResult } from '../../src/guest/agent.ts';
import { findDisk, prepareMount, unmount, type DiskIdentity, type PrepareMountRequest } from '../../src/guest/disks.ts';
import { DiskHolders } from '../../src/guest/holders.ts';
import { openLuks2 } from '../../src/guest/luks.ts';
import type { BusyProcess } from '../../src/guest/run-script.ts';
import { rawVmMissing, startRawVm, type RawDisk, type RawVm } from '../support/raw-vm.ts';

const skip = rawVmMissing();
const MIB = 1024 * 1024;
const BOOT_TIMEOUT_MS = 120_000;
// Proving that 320 MiB are empty takes long under TCG.
const timeoutMs = 240_000;

const small = 16 * MIB;
const text = (value: string): Buffer => Buffer.from(value, 'latin1');

/** One disk a case; slots beyond 9 show that addresses are hexadecimal. */
const disks: readonly RawDisk[] = [
  { serial: 'ext4', slot: 0x03, bytes: 64 * MIB },
  { serial: 'xfs', slot: 0x04, bytes: 320 * MIB },
  { serial: 'blank', slot: 0x05, bytes: small },
  { serial: 'twice', slot: 0x06, bytes: 64 * MIB },
  { serial: 'kernel', slot: 0x1b, bytes: small },
  { serial: 'busy', slot: 0x07, bytes: small },
  { serial: 'raw', slot: 0x08, bytes: small },
  { serial: 'read-only', slot: 0x09, bytes: small, readOnly: true },
  { serial: 'swap', slot: 0x0a, bytes: small, content: swapHeader() },
  { serial: 'lvm', slot: 0x0b, bytes: small, content: [{ offset: 512, bytes: lvmLabel() }] },
  { serial: 'mbr', slot: 0x0c, bytes: small, content: [{ offset: 446, bytes: mbrTable() }] },
  { serial: 'head', slot: 0x0d, bytes: small, content: [{ offset: MIB - 1, bytes: text('x') }] },
  { serial: 'tail', slot: 0x0e, bytes: small + 512, content: [{ offset: small + 511, bytes: text('x') }] },
  { serial: 'tail-first', slot: 0x0f, bytes: small + 512, content: [{ offset: small + 512 - MIB, bytes: text('x') }] },
  { serial: 'middle', slot: 0x10, bytes: small, content: [{ offset: small / 2 + 1, bytes: text('x') }] },
  { serial: 'tiny', slot: 0x1a, bytes: 512, content: [{ offset: 511, bytes: text('x') }] },
];

/** Version 1, 100 pages, and the magic at the end of the first page. */
function swapHeader(): { offset: number; bytes: Buffer }[] {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(1, 0);
  header.writeUInt32LE(100, 4);
  return [
    { offset: 1024, bytes: header },
    { offset: 4086, bytes: text('SWAPSPACE2') },
  ];
}

/** As libblkid reads it: magic, version, offset of the physical volume header; the checksum is 0 and so untrue. */
function lvmLabel(): Buffer {
  const label = Buffer.alloc(64);
  label.write('LABELONE', 0, 'latin1');
  label.writeBigUInt64LE(1n, 8);
  label.write('LVM2 001', 24, 'latin1');
  return label;
}

function mbrTable(): Buffer {
  const table = Buffer.alloc(66);
  table[4] = 0x83;
  table.writeUInt32LE(2048, 8);
  table.writeUInt32LE(4096, 12);
  table.writeUInt16LE(0xaa55, 64);
  return table;
}

function identity(serial: string): DiskIdentity {
  const disk = disks.find((each) => each.serial === serial);
  assert.ok(disk, serial);
  return { pci: { domain: 0, bus: 0, slot: disk.slot }, serial };
}

function refused(reason: string, code = 'FAILED_PRECONDITION', message = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShimError, String(error));
    assert.deepEqual([error.code, error.reason], [code, reason], error.message);
    assert.doesNotMatch(error.message, /\n/);
    assert.match(error.message, message);
    return true;
  };
}

describe('a real guest', { skip }, () => {
  let vm: RawVm;
  let agent: GuestAgent;

  before(async () => {
    vm = await startRawVm({ disks });
    agent = new GuestAgent({ path: vm.agentPath, log: silentLogger() });
    await agent.waitReady({ timeoutMs: BOOT_TIMEOUT_MS });
  });

  after(async () => {
    await agent[Symbol.asyncDispose]();
    await vm[Symbol.asyncDispose]();
  });

  const sh = async (script: string, ...args: string[]): Promise<ExecResult> =>
    await agent.exec({ path: '/bin/sh', args: ['-c', script, 'sh', ...args], timeoutMs });

  /** Runs a script that must succeed; its output without the last newline. */
  const output = async (script: string, ...args: string[]): Promise<string> => {
    const result = await sh(script, ...args);
    assert.equal(result.exitCode, 0, result.stderr.toString());
    return result.stdout.toString().trimEnd();
  };

  const mount = (serial: string, changes: Partial<PrepareMountRequest> = {}): ReturnType<typeof prepareMount> =>
    prepareMount(agent, {
      ...identity(serial),
      fsType: 'ext4',
      mountPoint: `/mnt/${serial}`,
      options: ['noatime'],
      format: 'if_empty',
      readOnly: false,
      timeoutMs,
      ...changes,
    });

  const release = (serial: string, force = false): ReturnType<typeof unmount> =>
    unmount(agent, { ...identity(serial), mountPoint: `/mnt/${serial}`, force, timeoutMs });

  const holders = async (serial: string): Promise<readonly BusyProcess[]> => {
    const use = await new DiskHolders(agent).of(identity(serial));
    assert.ok(use.there, serial);
    return use.users;
  };

  const node = async (serial: string): Promise<string> => {
    const found = await findDisk(agent, identity(serial));
    assert.ok(found, serial);
    return found;
  };

  describe('the agent', () => {
    it('answers', async () => {
      assert.equal(agent.state, 'ready');
      await agent.ping();
      const { version, commands } = await agent.info();
      assert.match(version, /^\d+\.\d+/);
      assert.ok(commands.has('guest-exec') && commands.has('guest-get-disks'));
    });

    it('exec carries 1 MiB in and out exactly', async () => {
      const input = randomBytes(MIB + 1);
      const result = await agent.exec({ path: '/bin/cat', input, timeoutMs });
      assert.equal(result.exitCode, 0);
      assert.equal(result.truncated, false);
      assert.ok(result.stdout.equals(input));
    });

    it('exec tells exit code, signal, environment and stderr', async () => {
      const exited = await sh('echo "$1" >&2; exit 7', 'a "b" $c');
      assert.equal(exited.exitCode, 7);
      assert.equal(exited.stderr.toString(), 'a "b" $c\n');
      const killed = await sh('kill -9 $$');
      assert.deepEqual([killed.exitCode, killed.signal], [undefined, 9]);
      const env = await agent.exec({ path: '/usr/bin/env', env: ['ONLY=this'], timeoutMs });
      assert.equal(env.stdout.toString(), 'ONLY=this\n');
    });

    it('exec that does not end in time leaves the process and names it', async () => {
      const error = await agent.exec({ path: '/bin/sleep', args: ['1000'], timeoutMs: 500 }).catch((e: unknown) => e);
      assert.ok(refused('GUEST_EXEC_TIMEOUT', 'DEADLINE_EXCEEDED')(error) && error instanceof ShimError);
      assert.equal(await output('cat "/proc/$1/comm"; kill "$1"', error.metadata['pid'] ?? ''), 'sleep');
    });

    it('disks have their PCI addresses', async () => {
      const known = (await agent.disks()).filter((disk) => !disk.partition);
      const slots = known.map((disk) => disk.pci?.slot ?? -1).sort((a, b) => a - b);
      assert.deepEqual(
        slots,
        disks.map((disk) => disk.slot).sort((a, b) => a - b),
      );
      assert.equal(await node('ext4'), '/dev/vda');
      assert.equal(await findDisk(agent, { pci: { domain: 0, bus: 0, slot: 0x1d }, serial: 'ext4' }), undefined);
    });
  });

  describe('prepareMount', () => {
    for (const fsType of ['ext4', 'xfs'] as const) {
      it(`${fsType}: formats a blank disk once and keeps what is on it`, async () => {
        const mountPoint = `/mnt/${fsType} with \\ blank`;
        const first = await mount(fsType, { fsType, mountPoint });
        assert.equal(first.formatted, true);
        assert.equal(first.device, await node(fsType));
        assert.match(first.uuid ?? '', /^[0-9a-f-]{36}$/);
        const seen = (await agent.mounts()).find((each) => each.mountPoint === mountPoint);
        assert.deepEqual([seen?.fsType, seen?.disks[0]?.pci?.slot], [fsType, identity(fsType).pci.slot]);
        await output('echo kept > "$1/file"', mountPoint);

        assert.deepEqual(await mount(fsType, { fsType, mountPoint }), { ...first, formatted: false }, 'asked again');
        assert.deepEqual(await release(fsType), { unmounted: true });
        assert.doesNotMatch(await output('cat /proc/self/mountinfo'), new RegExp(first.device));
        assert.deepEqual(await release(fsType), { unmounted: true }, 'asked again');

        const again = await mount(fsType, { fsType, mountPoint, readOnly: true });
        assert.deepEqual(again, { ...first, formatted: false });
        assert.equal(await output('cat "$1/file"; ! touch "$1/x" 2>/dev/null', mountPoint), 'kept');
        assert.deepEqual(await release(fsType), { unmounted: true });
        const other = fsType === 'ext4' ? 'xfs' : 'ext4';
        await assert.rejects(mount(fsType, { fsType: other }), refused('GUEST_FS_MISMATCH'));
      });
    }

    it('a blank disk that must not be formatted stays blank', async () => {
      await assert.rejects(mount('blank', { format: 'never' }), refused('GUEST_NO_FILESYSTEM'));
      assert.equal(
        await output('cmp -n "$2" "$1" /dev/zero && echo blank', await node('blank'), String(small)),
        'blank',
      );
    });

    for (const [serial, reason] of [
      ['swap', 'GUEST_FS_MISMATCH'],
      ['lvm', 'GUEST_DISK_NOT_EMPTY'],
      ['mbr', 'GUEST_DISK_NOT_EMPTY'],
      ['head', 'GUEST_DISK_NOT_EMPTY'],
      ['tail', 'GUEST_DISK_NOT_EMPTY'],
      ['tail-first', 'GUEST_DISK_NOT_EMPTY'],
      ['tiny', 'GUEST_DISK_NOT_EMPTY'],
    ] as const) {
      it(`a disk that is not empty (${serial}) is left as it is`, async () => {
        const device = await node(serial);
        const before = await output('md5sum < "$1"', device);
        await assert.rejects(mount(serial), refused(reason));
        await assert.rejects(mount(serial, { format: 'never' }), refused(reason));
        assert.equal(await output('md5sum < "$1"', device), before);
      });
    }

    it('a disk with data in its middle alone is left as it is: by mkfs, and by encryption', async () => {
      const device = await node('middle');
      const before = await output('md5sum < "$1"', device);
      await assert.rejects(mount('middle'), refused('GUEST_DISK_NOT_EMPTY'));
      const encryption = { name: 'middle', mode: 'create', integrity: false, sectorSize: 512, uuid: '' } as const;
      const key = { kind: 'ephemeral' } as const;
      const request = { ...identity('middle'), ...encryption, key, readOnly: false, timeoutMs };
      await assert.rejects(openLuks2(agent, request), refused('GUEST_DISK_NOT_EMPTY'));
      await assert.rejects(mount('middle', { format: 'never' }), refused('GUEST_NO_FILESYSTEM'));
      assert.equal(await output('md5sum < "$1"', device), before);
    });

    it('a disk that cannot be read to its end, by bytes or by time, is not taken for empty', async () => {
      const device = await node('blank');
      const few = { proof: { seen: 'look', readBytesMax: small - 1 } } as const;
      await assert.rejects(mount('blank', few), refused('GUEST_EMPTINESS_UNKNOWN'));
      // Where the host has seen data, nothing that is read here tells more.
      const data = { proof: { seen: 'data', readBytesMax: small } } as const;
      await assert.rejects(mount('blank', data), refused('GUEST_DISK_NOT_EMPTY'));
      assert.equal(await output('cmp -n "$2" "$1" /dev/zero && echo blank', device, String(small)), 'blank');
    });

    it('a disk whose serial is not the expected one is not touched', async () => {
      const wrong = { ...identity('blank'), serial: 'blanc', mountPoint: '/mnt/blank' };
      await assert.rejects(mount('blank', wrong), refused('GUEST_DISK_MISMATCH'));
      await assert.rejects(unmount(agent, { ...wrong, force: true, timeoutMs }), refused('GUEST_DISK_MISMATCH'));
      await assert.rejects(new DiskHolders(agent).of(wrong), refused('GUEST_DISK_MISMATCH'));
      const nowhere = { pci: { domain: 0, bus: 0, slot: 0x1d } };
      await assert.rejects(mount('blank', nowhere), refused('GUEST_DISK_NOT_FOUND'));
      assert.equal(
        await output('cmp -n "$2" "$1" /dev/zero && echo blank', await node('blank'), String(small)),
        'blank',
      );
    });

    it('a mount point that is in use is refused before the disk is touched', async () => {
      await assert.rejects(mount('blank', { mountPoint: '/tmp' }), refused('GUEST_MOUNT_POINT_BUSY'));
      await assert.rejects(
        mount('blank', { mountPoint: '/mnt/../tmp' }),
        refused('INVALID_MOUNT_POINT', 'INVALID_ARGUMENT'),
      );
      await assert.rejects(mount('blank', { options: ['a,b'] }), refused('INVALID_MOUNT_OPTION', 'INVALID_ARGUMENT'));
      assert.equal(
        await output('cmp -n "$2" "$1" /dev/zero && echo blank', await node('blank'), String(small)),
        'blank',
      );
    });

    it('a disk that cannot be written is not said to be formatted', async () => {
      await assert.rejects(mount('read-only'), refused('GUEST_FORMAT_FAILED'));
    });

    it("mkfs's own reason is told, without its whole usage text", async () => {
      const tooSmall = refused(
        'GUEST_FORMAT_FAILED',
        'FAILED_PRECONDITION',
        /: [^;]*(?:too small|must be larger)[^/]*$/,
      );
      await assert.rejects(mount('blank', { fsType: 'xfs' }), tooSmall);
    });

    it('a mount that fails tells what the kernel said of it just now', async () => {
      const because = (why: RegExp): ReturnType<typeof refused> =>
        refused('GUEST_MOUNT_FAILED', 'FAILED_PRECONDITION', why);
      const options = ['nosuchoption'];
      await assert.rejects(mount('kernel', { options }), because(/; kernel: ext4: Unknown parameter 'nosuchoption'$/));
      await mount('kernel', { mountPoint: '/mnt/kernel' });
      await release('kernel');
      // The group descriptors: behind the superblock, which stays as it was.
      await output('dd if=/dev/zero of="$1" bs=1024 seek=2 count=1 conv=notrunc 2>&1 && sync', await node('kernel'));
      await assert.rejects(mount('kernel'), because(/; kernel: EXT4-fs \(vd[a-z]+\): group descriptors corrupted!$/));
    });

    it('two at once format once', async () => {
      const both = await Promise.all([mount('twice'), mount('twice')]);
      assert.deepEqual(both.map((each) => each.formatted).sort(), [false, true]);
      assert.equal(both[0].uuid, both[1].uuid);
      assert.deepEqual(await release('twice'), { unmounted: true });
    });
  });

  describe('unmount and holders', () => {
    before(async () => {
      await mount('busy');
    });

    const holding = (what: string, act: string): void => {
      it(`a process that holds it (${what}) is named`, async () => {
        // The process holds nothing of what it inherited, so that exec ends while it stays.
        const pid = await output(`${act}\n echo $!; sleep 0.3`);
        try {
          const answer = await release('busy');
          assert.ok(!answer.unmounted);
          assert.ok(
            answer.busy.some((each) => each.pid === Number(pid) && each.command === 'sleep' && each.what === what),
            JSON.stringify({ pid, ...answer }),
          );
          assert.ok(
            answer.busy.every((each) => each.pid === Number(pid)),
            JSON.stringify(answer.busy),
          );
        } finally {
          await output('kill "$1"; while [ -e "/proc/$1/fd/1" ]; do sleep 0.05; done; sync', pid);
          await mount('busy');
        }
      });
    };
    holding('cwd', 'cd /mnt/busy; sleep 1000 > /dev/null 2>&1 < /dev/null &');
    holding('fd/1', 'sleep 1000 > /mnt/busy/log 2> /dev/null < /dev/null &');
    holding('exe', 'cp /bin/busybox /mnt/busy/sleep; /mnt/busy/sleep 1000 > /dev/null 2>&1 < /dev/null &');
    holding('mount-namespace', 'unshare -m sleep 1000 > /dev/null 2>&1 < /dev/null &');

    it('refused half-way: what is still mounted is told, in this namespace', async () => {
      await output('mkdir -p "/mnt/o th" /mnt/busy/sub; mount --bind /mnt/busy/sub "/mnt/o th"');
      const pid = await output('cd "/mnt/o th"; sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!');
      const answer = await release('busy');
      assert.deepEqual(answer, {
        unmounted: false,
        busy: [{ pid: Number(pid), command: 'sleep', what: 'cwd' }],
        mountedAt: ['/mnt/o th'],
      });
      await output('kill "$1"; while [ -e "/proc/$1/fd/1" ]; do sleep 0.05; done', pid);
      assert.deepEqual(await release('busy'), { unmounted: true });
      await mount('busy');
      const away = await output('unshare -m sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!; sleep 0.3');
      const hidden = await release('busy');
      assert.deepEqual(hidden, {
        unmounted: false,
        busy: [{ pid: Number(away), command: 'sleep', what: 'mount-namespace' }],
        mountedAt: [],
      });
      await output('kill "$1"; while [ -e "/proc/$1/fd/1" ]; do sleep 0.05; done', away);
      await mount('busy');
    });

    it('several mounts of one disk all go', async () => {
      await output('mkdir -p /mnt/other /mnt/busy/sub; mount --bind /mnt/busy/sub /mnt/other');
      assert.deepEqual(await release('busy'), { unmounted: true });
      assert.equal(await output('grep -c busy /proc/self/mountinfo || :'), '0');
      await mount('busy');
    });

    it('another file system on top is named', async () => {
      await output('mkdir -p /mnt/busy/sub; mount -t tmpfs none /mnt/busy/sub');
      assert.deepEqual(await release('busy'), {
        unmounted: false,
        busy: [{ pid: 0, command: 'kernel', what: 'mount:/mnt/busy/sub' }],
        mountedAt: ['/mnt/busy'],
      });
      await output('umount /mnt/busy/sub');
    });

    it('what is mounted over it stays with its files, force or not, and without force nothing else goes', async () => {
      await output('mkdir -p /mnt/aside; mount --bind /mnt/busy /mnt/aside');
      for (const [cover, undo] of [
        ['mount -t tmpfs mine /mnt/busy', 'umount /mnt/busy'],
        // Above it: what the path leads to is nothing of ours either.
        ['mount -t tmpfs top /mnt && mkdir /mnt/busy && mount -t tmpfs mine /mnt/busy', 'umount /mnt/busy /mnt'],
      ] as const) {
        await output(`${cover} && echo "only copy" > /mnt/busy/file`);
        const answer = await release('busy');
        assert.ok(!answer.unmounted);
        assert.deepEqual([...answer.mountedAt].sort(), ['/mnt/aside', '/mnt/busy'], cover);
        assert.ok(
          answer.busy.some(({ pid, what }) => pid === 0 && what === 'mount:/mnt/busy'),
          JSON.stringify(answer.busy),
        );
        await assert.rejects(release('busy', true), refused('GUEST_UNMOUNT_FAILED'));
        assert.equal(await output('cat /mnt/busy/file'), 'only copy', cover);
        await output(`${undo}; grep -q " /mnt/aside " /proc/self/mountinfo || mount --bind /mnt/busy /mnt/aside`);
      }
      assert.deepEqual(await release('busy'), { unmounted: true });
      await mount('busy');
    });

    it('a process that has the disk itself open, once nothing of it is mounted, is named', async () => {
      const pid = await output('sleep 1000 < "$1" > /dev/null 2>&1 & echo $!', await node('busy'));
      const answer = await release('busy');
      const busy = [{ pid: Number(pid), command: 'sleep', what: 'fd/0' }];
      assert.deepEqual(answer, { unmounted: false, busy, mountedAt: [] });
      await output('kill "$1"; while [ -e "/proc/$1/fd/1" ]; do sleep 0.05; done', pid);
      assert.deepEqual(await release('busy'), { unmounted: true });
      await mount('busy');
    });

    it('force takes it away although it is in use', async () => {
      const pid = await output('cd /mnt/busy; sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!');
      assert.deepEqual(await release('busy', true), { unmounted: true });
      assert.equal(await output('grep -c busy /proc/self/mountinfo || :'), '0');
      const still = await holders('busy');
      assert.deepEqual(still, [{ pid: Number(pid), command: 'sleep', what: 'cwd' }]);
      await output('kill "$1"', pid);
      await mount('busy');
    });

    it('a disk that cannot be opened: nobody begins to use it, and it is let go of all the same', async () => {
      // As in the moment before Linux lets it be opened: its node is there, and no driver answers to it.
      const device = await node('busy');
      await output('mknod /dev/nobody b 259 1048575 && mount --bind /dev/nobody "$1"', device);
      await assert.rejects(mount('busy'), refused('GUEST_DISK_NOT_FOUND'));
      assert.deepEqual(await release('busy'), { unmounted: true });
      assert.equal(await output('grep -c " /mnt/busy " /proc/self/mountinfo || :'), '0');
      await output('umount "$1" && rm /dev/nobody', device);
      await mount('busy');
    });

    it('holders: a mount', async () => {
      const found = await holders('busy');
      assert.deepEqual(found, [{ pid: 0, command: 'kernel', what: 'mount:/mnt/busy' }]);
    });

    it('holders: in another mount namespace, below a loop device, and a file system that is mounted nowhere', async () => {
      const device = await node('blank');
      assert.deepEqual(await holders('blank'), []);
      const script =
        'mkfs.ext4 -q "$1" && mkdir -p /mnt/n && (exec unshare -m sh -c "mount $1 /mnt/n && exec sleep 1000") > /dev/null 2>&1 & ';
      const pid = await output(`${script} sleep 1; pidof sleep | cut -d" " -f1`, device);
      assert.deepEqual(await holders('blank'), [{ pid: Number(pid), command: 'sleep', what: 'mount-namespace' }]);
      await output('kill "$1"; while [ -e "/proc/$1/fd/1" ]; do sleep 0.05; done; sleep 0.5', pid);
      assert.deepEqual(await holders('blank'), []);
      const loop = await output('modprobe loop; losetup /dev/loop0 "$1" && echo /dev/loop0', device);
      const name = loop.replace('/dev/', '');
      assert.deepEqual(await holders('blank'), [{ pid: 0, command: 'kernel', what: `holder:${name}` }]);
      await output('losetup -d "$1"', loop);
      // A file on it that only the kernel has open: no process and no mount tells of it.
      const file = 'mount "$1" /mnt/n && dd if=/dev/zero of=/mnt/n/f bs=64k count=16 2> /dev/null';
      await output(`${file} && losetup "$2" /mnt/n/f && umount -l /mnt/n`, device, loop);
      const still = await holders('blank');
      assert.ok(still.length > 0 && still.every(({ what }) => what.startsWith('superblock:')), JSON.stringify(still));
      await output('losetup -d "$1"; sleep 0.5', loop);
      assert.deepEqual(await holders('blank'), []);
      await output('dd if=/dev/zero of="$1" bs=1M 2> /dev/null; :', device);
    });

    it('holders: a partition in use', async () => {
      const device = await node('mbr');
      assert.deepEqual(await holders('mbr'), []);
      const pid = await output('sleep 1000 < "$1" > /dev/null 2>&1 & echo $!', `${device}1`);
      assert.deepEqual(await holders('mbr'), [{ pid: Number(pid), command: 'sleep', what: 'fd/0' }]);
      await output('kill "$1"', pid);
      await output('modprobe dm_mod; dmsetup create part --table "0 2048 linear ${1}1 0" 2>&1', device);
      assert.deepEqual(await holders('mbr'), [{ pid: 0, command: 'kernel', what: 'holder:dm-0' }]);
      await output('dmsetup remove part 2>&1');
    });

    it('holders: of many disks at once, each its own', async () => {
      const looks = new DiskHolders(agent);
      const pid = await output('sleep 1000 < "$1" > /dev/null 2>&1 & echo $!', await node('raw'));
      const of = (serial: string) => looks.of(identity(serial));
      const absent = looks.of({ pci: { domain: 0, bus: 0, slot: 0x1d }, serial: 'absent' });
      const [busy, raw, head, gone] = await Promise.all([of('busy'), of('raw'), of('head'), absent]);
      assert.deepEqual(busy, { there: true, users: [{ pid: 0, command: 'kernel', what: 'mount:/mnt/busy' }] });
      assert.deepEqual(raw, { there: true, users: [{ pid: Number(pid), command: 'sleep', what: 'fd/0' }] });
      assert.deepEqual([head, gone], [{ there: true, users: [] }, { there: false }]);
      await output('kill "$1"', pid);
    });

    it('holders: the disk itself held open, swap, device-mapper, nobody', async () => {
      const device = await node('raw');
      assert.deepEqual(await holders('raw'), []);
      const pid = await output('sleep 1000 < "$1" > /dev/null 2>&1 & echo $!', device);
      assert.deepEqual(await holders('raw'), [{ pid: Number(pid), command: 'sleep', what: 'fd/0' }]);
      await output('kill "$1"', pid);
      await output('mkswap "$1" > /dev/null && swapon "$1"', device);
      assert.deepEqual(await holders('raw'), [{ pid: 0, command: 'kernel', what: `swap:${device}` }]);
      await output('swapoff "$1"; modprobe dm_mod; dmsetup create top --table "0 2048 linear $1 0" 2>&1', device);
      assert.deepEqual(await holders('raw'), [{ pid: 0, command: 'kernel', what: 'holder:dm-0' }]);
      const answer = await release('raw');
      const busy = [{ pid: 0, command: 'kernel', what: 'holder:dm-0' }];
      assert.deepEqual(answer, { unmounted: false, busy, mountedAt: [] });
      await output('dmsetup remove top 2>&1');
      assert.deepEqual(await holders('raw'), []);
    });
  });
});
