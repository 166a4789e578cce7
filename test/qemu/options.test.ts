import assert from 'node:assert/strict';
import { open, readFile, stat, truncate } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { execa } from 'execa';
import type { Mount } from '../../src/grpc/generated/qshim/v1/Mount.ts';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { call, TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { outcome } from '../support/grpc-errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { driverEvidence } from '../support/trial.ts';

const skip = await realVmSkipReason();
const driver = await driverEvidence();
const MIB = 1024 * 1024;

await describe('sources and options, as the guest sees them', { skip }, async () => {
  let daemon: TestDaemon;
  let count = 0;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2 } });
  });
  after(() => daemon[Symbol.asyncDispose]());

  /** Attaches with `spec`, gives the volume to `look`, and detaches. */
  async function withVolume(spec: VolumeSpec, look: (volume: Volume__Output) => Promise<void>): Promise<void> {
    count += 1;
    const volumeId = `option${count}`;
    const path = spec.qcow2File || spec.blockDevice ? '' : await daemon.rawFile(`${volumeId}.raw`);
    const source = path === '' ? {} : { rawFile: { path } };
    const volume = await daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { ...source, ...spec } });
    assert.equal(volume.state, 'VOLUME_STATE_ATTACHED');
    await look(volume);
    const removed = await daemon.client.detach({ sandboxId: 'vm', volumeId });
    assert.equal(removed.state, 'VOLUME_STATE_REMOVED');
  }

  /** A file of /sys/block/DISK in the guest. */
  async function sysBlock(volume: Volume__Output, file: string): Promise<string> {
    return (
      await daemon.client.guest('vm', `cat /sys/block/${volume.guestDevice.replace('/dev/', '')}/${file}`)
    ).trim();
  }

  await it('gives serial, PCI path, PCI address and device name that are the guest’s own', async () => {
    await withVolume({ serial: 'my-serial.1' }, async (volume) => {
      assert.equal(await sysBlock(volume, 'serial'), 'my-serial.1');
      const link = await daemon.client.guest('vm', `readlink -f /sys/block/${volume.guestDevice.slice(5)}/device/..`);
      assert.equal(link.trim().split('/').at(-1), volume.guestPciAddress);
      // "BRIDGE/DEVICE": the same numbers as on the way down the guest's own tree.
      const [bridge, device] = volume.pciPath.split('/');
      assert.match(link, new RegExp(`0000:00:${String(bridge)}\\.0/0000:[0-9a-f]{2}:${String(device)}\\.0`));
      // The daemon may not listen to the kernel's announcements yet: guest-events.test.ts sees that it does.
      const [first, ...told] = volume.evidence;
      assert.equal(first, driver);
      assert.ok(told.length === 1 && ['guest-agent', 'guest-uevent'].includes(told[0] ?? ''), told.join());
      assert.ok(volume.timings.length >= 4);
    });
  });

  await it('read-only: the guest cannot write', async () => {
    await withVolume({ readOnly: true }, async (volume) => {
      assert.equal(await sysBlock(volume, 'ro'), '1');
      const result = await daemon.client.exec('vm', `echo x > ${volume.guestDevice}`);
      assert.notEqual(result.exitCode, 0);
    });
  });

  for (const cache of ['NONE', 'WRITEBACK', 'WRITETHROUGH', 'DIRECTSYNC', 'UNSAFE'] as const) {
    await it(`cache mode ${cache.toLowerCase()}`, async () => {
      await withVolume({ cache: `CACHE_MODE_${cache}` }, async (volume) => {
        const through = cache === 'WRITETHROUGH' || cache === 'DIRECTSYNC';
        assert.equal(await sysBlock(volume, 'queue/write_cache'), through ? 'write through' : 'write back');
        await daemon.client.guest('vm', `echo ${cache} > ${volume.guestDevice} && sync`);
        const bytes = await readFile(volume.spec?.rawFile?.path ?? '');
        assert.equal(bytes.subarray(0, cache.length).toString(), cache);
      });
    });
  }

  for (const [aio, cache] of [
    ['THREADS', 'WRITEBACK'],
    ['NATIVE', 'NONE'],
    ['IO_URING', 'WRITEBACK'],
  ] as const) {
    await it(`aio ${aio.toLowerCase()}`, async (context) => {
      count += 1;
      const volumeId = `aio${count}`;
      const path = await daemon.rawFile(`${volumeId}.raw`);
      const spec = { rawFile: { path }, aio: `AIO_MODE_${aio}`, cache: `CACHE_MODE_${cache}` } as const;
      const result = await outcome(daemon.client.attach({ sandboxId: 'vm', volumeId, spec }));
      if (!result.ok) {
        // A mode that the caller chose is never replaced by another.
        assert.match(result.error.details, /could not open/);
        context.skip(`this host refuses aio ${aio}: ${result.error.details}`);
        return;
      }
      assert.equal(result.value.aio, `AIO_MODE_${aio}`);
      await daemon.client.guest(
        'vm',
        `dd if=/dev/zero of=${result.value.guestDevice} bs=64k count=16 conv=fsync 2>/dev/null`,
      );
      await daemon.client.detach({ sandboxId: 'vm', volumeId });
    });
  }

  await it('auto picks an aio mode and says which', async () => {
    await withVolume({}, (volume) => {
      assert.notEqual(volume.aio, 'AIO_MODE_AUTO');
      return Promise.resolve();
    });
  });

  await it('queues, block sizes', async () => {
    await withVolume({ queues: 2, logicalBlockSize: 4096, physicalBlockSize: 4096 }, async (volume) => {
      assert.equal(await sysBlock(volume, 'queue/logical_block_size'), '4096');
      assert.equal(await sysBlock(volume, 'queue/physical_block_size'), '4096');
      const queues = await daemon.client.guest('vm', `ls /sys/block/${volume.guestDevice.slice(5)}/mq | wc -l`);
      assert.equal(queues.trim(), '2');
    });
  });

  await it('discard unmap gives the blocks back to the host, detect-zeroes unmap keeps holes', async () => {
    await withVolume({ discard: 'DISCARD_MODE_UNMAP', detectZeroes: 'DETECT_ZEROES_UNMAP' }, async (volume) => {
      const path = volume.spec?.rawFile?.path ?? '';
      const allocated = async (): Promise<number> => {
        await using file = await open(path);
        return (await file.stat()).blocks;
      };
      await daemon.client.guest(
        'vm',
        `dd if=/dev/urandom of=${volume.guestDevice} bs=1M count=4 conv=fsync 2>/dev/null`,
      );
      const full = await allocated();
      assert.ok(full >= (4 * MIB) / 512);
      await daemon.client.guest('vm', `dd if=/dev/zero of=${volume.guestDevice} bs=1M count=2 conv=fsync 2>/dev/null`);
      assert.ok((await allocated()) <= full - (2 * MIB) / 512);
      await daemon.client.guest('vm', `/sbin/blkdiscard ${volume.guestDevice} || blkdiscard ${volume.guestDevice}`);
      assert.ok((await allocated()) < full / 2);
    });
  });

  await it('discard ignore offers the guest no discard', async () => {
    await withVolume({ discard: 'DISCARD_MODE_IGNORE' }, async (volume) => {
      assert.equal(await sysBlock(volume, 'queue/discard_max_bytes'), '0');
    });
  });

  await it('a qcow2 image has its virtual size and keeps what the guest wrote', async () => {
    const path = `${daemon.volumeDir}/image.qcow2`;
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', path, '32M']);
    await withVolume({ qcow2File: { path } }, async (volume) => {
      assert.equal(volume.sizeBytes, 32 * MIB);
      assert.equal(await sysBlock(volume, 'size'), String((32 * MIB) / 512));
      await daemon.client.guest('vm', `echo in-qcow2 > ${volume.guestDevice} && sync`);
    });
    const raw = `${daemon.volumeDir}/converted.raw`;
    await execa('qemu-img', ['convert', '-O', 'raw', path, raw]);
    assert.equal((await readFile(raw)).subarray(0, 8).toString(), 'in-qcow2');
  });

  await it('a block device', async (context) => {
    const file = await daemon.rawFile('loop.raw');
    const loop = await execa('losetup', ['--find', '--show', file], { reject: false });
    if (loop.exitCode !== 0) {
      context.skip(`no loop device: ${loop.stderr}`);
      return;
    }
    const path = loop.stdout.trim();
    try {
      const refused = await outcome(
        daemon.client.attach({ sandboxId: 'vm', volumeId: 'loop', spec: { blockDevice: { path } } }),
      );
      assert.ok(!refused.ok && refused.error.code === status.PERMISSION_DENIED, '/dev is not among the allowed roots');
      await using other = await TestDaemon.start({ config: { allowed_roots: '/dev' } });
      await other.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
      const volume = await other.client.attach({ sandboxId: 'vm', volumeId: 'loop', spec: { blockDevice: { path } } });
      assert.equal(volume.sizeBytes, 16 * MIB);
      await other.client.guest('vm', `echo on-a-block-device > ${volume.guestDevice} && sync`);
      await other.client.detach({ sandboxId: 'vm', volumeId: 'loop' });
    } finally {
      await execa('losetup', ['--detach', path]);
    }
    assert.equal((await readFile(file)).subarray(0, 17).toString(), 'on-a-block-device');
  });

  await it('a block device that has grown further than asked is taken whole; a longer file is never cut', async (context) => {
    const file = await daemon.rawFile('growing.raw');
    const loop = await execa('losetup', ['--find', '--show', file], { reject: false });
    if (loop.exitCode !== 0) {
      context.skip(`no loop device: ${loop.stderr}`);
      return;
    }
    const path = loop.stdout.trim();
    try {
      await using other = await TestDaemon.start({ config: { allowed_roots: `/dev,${daemon.volumeDir}` } });
      await other.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
      const resize = (volumeId: string, sizeBytes: number): Promise<Volume__Output> =>
        call((done) => other.client.volumes.resize({ sandboxId: 'vm', volumeId, sizeBytes }, done));
      const sectors = async ({ guestDevice }: Volume__Output): Promise<number> =>
        Number(await other.client.guest('vm', `cat /sys/block/${guestDevice.replace('/dev/', '')}/size`));
      const volume = await other.client.attach({ sandboxId: 'vm', volumeId: 'loop', spec: { blockDevice: { path } } });
      await truncate(file, 64 * MIB);
      await execa('losetup', ['--set-capacity', path]);
      for (let time = 0; time < 2; time += 1) {
        assert.equal((await resize('loop', 48 * MIB)).sizeBytes, 64 * MIB, 'what was seen, not what was asked for');
      }
      assert.equal((await other.client.getVolume('vm', 'loop')).sizeBytes, 64 * MIB);
      assert.equal(await sectors(volume), (64 * MIB) / 512);
      const shrunk = await outcome(resize('loop', 32 * MIB));
      assert.ok(!shrunk.ok && shrunk.error.code === status.FAILED_PRECONDITION);
      await other.client.detach({ sandboxId: 'vm', volumeId: 'loop' });

      const long = await daemon.rawFile('long.raw');
      const raw = await other.client.attach({ sandboxId: 'vm', volumeId: 'raw', spec: { rawFile: { path: long } } });
      await truncate(long, 64 * MIB);
      const cut = await refusal(resize('raw', 48 * MIB));
      assert.deepEqual([cut.code, cut.reason], ['FAILED_PRECONDITION', 'SHRINK_REFUSED']);
      assert.deepEqual([(await stat(long)).size, await sectors(raw)], [64 * MIB, (16 * MIB) / 512]);
      assert.equal((await resize('raw', 64 * MIB)).sizeBytes, 64 * MIB);
      assert.equal(await sectors(raw), (64 * MIB) / 512);
      await other.client.detach({ sandboxId: 'vm', volumeId: 'raw' });
      assert.equal((await stat(long)).size, 64 * MIB);
    } finally {
      await execa('losetup', ['--detach', path]);
    }
  });

  await it('mounts, refuses to detach what is busy and names who, and takes it with force', async () => {
    const path = await daemon.rawFile('mount.raw', 64 * MIB);
    const mount = {
      fsType: 'ext4',
      mountPoint: '/mnt/data',
      options: ['noatime'],
      format: 'FORMAT_IF_EMPTY',
    } satisfies Mount;
    const attach = () => daemon.client.attach({ sandboxId: 'vm', volumeId: 'mnt', spec: { rawFile: { path }, mount } });
    assert.equal((await attach()).formatted, true);
    await daemon.client.guest(
      'vm',
      'echo kept > /mnt/data/file; sync; (cd /mnt/data && exec sleep 600) >/dev/null 2>&1 &',
    );
    const refused = await outcome(daemon.client.detach({ sandboxId: 'vm', volumeId: 'mnt' }));
    assert.ok(!refused.ok);
    assert.equal(refused.error.code, status.FAILED_PRECONDITION);
    assert.match(refused.error.details, /sleep \(pid \d+/);
    const still = await daemon.client.getVolume('vm', 'mnt');
    assert.equal(still.state, 'VOLUME_STATE_ATTACHED');
    assert.equal(still.cause?.reason, 'VOLUME_BUSY');
    assert.ok(still.evidence.includes('guest-mount'), 'it was not taken away');
    assert.equal((await daemon.client.guest('vm', 'cat /mnt/data/file')).trim(), 'kept');
    await daemon.client.guest('vm', 'killall sleep');
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'mnt' });
    assert.equal((await daemon.client.guest('vm', 'grep -c /mnt/data /proc/mounts || true')).trim(), '0');
    // The second time it has a file system: nothing is formatted, the file is still there.
    assert.equal((await attach()).formatted, false);
    assert.equal((await daemon.client.guest('vm', 'cat /mnt/data/file')).trim(), 'kept');
    await daemon.client.guest('vm', '(cd /mnt/data && exec sleep 600) >/dev/null 2>&1 &');
    const forced = await daemon.client.detach({ sandboxId: 'vm', volumeId: 'mnt', force: true });
    assert.equal(forced.state, 'VOLUME_STATE_REMOVED');
    await daemon.client.guest('vm', 'killall sleep');
  });

  await it('refuses to take a disk that the guest mounted by itself', async () => {
    const path = await daemon.rawFile('own.raw', 32 * MIB);
    const volume = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'own', spec: { rawFile: { path } } });
    await daemon.client.guest(
      'vm',
      `mkfs.ext4 -q ${volume.guestDevice} && mkdir -p /mnt/own && mount ${volume.guestDevice} /mnt/own`,
    );
    const refused = await outcome(daemon.client.detach({ sandboxId: 'vm', volumeId: 'own' }));
    assert.ok(!refused.ok && refused.error.code === status.FAILED_PRECONDITION);
    assert.match(refused.error.details, /mounted in the guest at \/mnt\/own/);
    await daemon.client.guest('vm', 'umount /mnt/own');
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'own' });
  });
});
