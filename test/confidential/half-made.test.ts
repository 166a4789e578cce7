import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { VolumeSpec } from '../../src/grpc/generated/qshim/v1/VolumeSpec.ts';
import { bareQemuBinary } from '../support/bare-qemu.ts';
import { fileHash, hostLuks, MIB, readAt, writeAt } from '../support/confidential.ts';
import { TestDaemon } from '../support/daemon.ts';
import { assertRefusal, refusal } from '../support/errors.ts';
import { loopDevice } from '../support/loop-device.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

const skip = await realVmSkipReason();
const SOURCE_BYTES = 24 * MIB;
const MADE_BYTES = 28 * MIB;
const SLOW_MS = 4000;

/** A VM that qshim does not know, which never runs, with a disk. */
async function otherVm(path: string): Promise<AsyncDisposable> {
  const disk = `driver=raw,node-name=d,file.driver=file,file.filename=${path}`;
  const machine = [
    '-machine',
    'q35,accel=tcg',
    '-m',
    '64',
    '-nodefaults',
    '-display',
    'none',
    '-S',
    '-monitor',
    'stdio',
  ];
  const child = spawn(bareQemuBinary, [...machine, '-blockdev', disk, '-device', 'virtio-blk-pci,drive=d'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  return {
    [Symbol.asyncDispose]: async () => {
      child.stdin.end('quit\n');
      await ended;
    },
  };
}

await describe('an image that is not finished is no image, and the source stays usable', { skip }, async () => {
  let daemon: TestDaemon;
  const config = { allowed_roots: `/dev,${tmpdir()}` };
  before(async () => {
    daemon = await TestDaemon.start({ config });
    await daemon.keyFile('key', randomBytes(20).toString('hex'));
  });
  after(() => daemon[Symbol.asyncDispose]());

  const spec = (path: string, iterationMs: number): VolumeSpec => ({
    rawFile: { path },
    ...hostLuks({ key: { file: `${daemon.keyDir}/key` }, iterationMs, sizeBytes: MADE_BYTES - 2_068_480 }),
  });
  const restart = async (): Promise<void> => {
    daemon = await TestDaemon.start({ directory: daemon.directory, config });
  };

  /** QEMU sets the size before it derives the key. It answers nothing until it has. */
  const atWork = (path: string): Promise<true> =>
    until('QEMU at work', async () => (await stat(path)).size === MADE_BYTES);

  /** Begins an attach that makes an image, and ends the daemon while QEMU works on it. The VM's pid. */
  async function interrupted(sandboxId: string, path: string): Promise<number> {
    const { qemuPid } = await daemon.client.createSandbox({
      sandboxId,
      spec: { vcpus: 1, readyWhen: 'READY_WHEN_STARTED' },
    });
    const attaching = daemon.client.attach({ sandboxId, volumeId: 'v', spec: spec(path, SLOW_MS) });
    const ended = assert.rejects(attaching);
    await atWork(path);
    const journal = await readFile(join(daemon.directoryOf(sandboxId), 'state.json'), 'utf8');
    assert.match(journal, new RegExp(`"creating":{"sourceBytes":${SOURCE_BYTES},"bornMs":`), 'the intent is on disk');
    await daemon.kill('SIGKILL');
    await ended;
    return qemuPid;
  }

  async function killQemu(pid: number): Promise<void> {
    process.kill(pid, 'SIGKILL');
    await until('its end', async () => (await stat(`/proc/${pid}/fd`).catch(() => undefined)) === undefined);
  }

  const removed = async (sandboxId: string): Promise<void> => {
    const state = async (): Promise<string> => (await daemon.client.getVolume(sandboxId, 'v')).state;
    await until('REMOVED', async () => (await state()) === 'VOLUME_STATE_REMOVED');
  };
  const shape = async (path: string): Promise<readonly [number, number]> => {
    const { size, blocks } = await stat(path);
    return [size, blocks];
  };
  const EMPTY = [SOURCE_BYTES, 0];

  await it('the daemon is killed: QEMU finishes it, and the next daemon takes it back', async () => {
    const path = await daemon.rawFile('one.raw', SOURCE_BYTES);
    await interrupted('one', path);
    await restart();
    await removed('one');
    assert.deepEqual(await shape(path), EMPTY);
    const again = await daemon.client.attach({ sandboxId: 'one', volumeId: 'v', spec: spec(path, 20) });
    assert.deepEqual([again.encryption?.created, again.encryption?.keySlots], [true, 1]);
    const journal = await readFile(join(daemon.directoryOf('one'), 'state.json'), 'utf8');
    assert.match(journal, /"creating":null/);
    await daemon.client.detach({ sandboxId: 'one', volumeId: 'v' });
    assert.equal((await stat(path)).size, MADE_BYTES, 'an image that was finished stays');
    await daemon.client.deleteSandbox('one');
  });

  await it('both are killed, with half an image on the disk: the next daemon takes it back', async () => {
    const path = await daemon.rawFile('two.raw', SOURCE_BYTES);
    await killQemu(await interrupted('two', path));
    await truncate(path, MADE_BYTES);
    await writeAt(path, 4096, randomBytes(200_000));
    await restart();
    await removed('two');
    assert.deepEqual(await shape(path), EMPTY);
    await daemon.client.deleteSandbox('two');
  });

  await it('somebody has used the file meanwhile: it is left as it is', async () => {
    const path = await daemon.rawFile('three.raw', SOURCE_BYTES);
    await killQemu(await interrupted('three', path));
    await truncate(path, SOURCE_BYTES);
    await writeAt(path, 20 * MIB, Buffer.from('mine'));
    const before = await fileHash(path);
    await restart();
    await removed('three');
    assert.equal(await fileHash(path), before);
    assert.match(await daemon.log(), /image that was not finished left as it is/);
    await daemon.client.deleteSandbox('three');
  });

  await it('QEMU alone is killed: the daemon that is there takes it back', async () => {
    const path = await daemon.rawFile('four.raw', SOURCE_BYTES);
    const { qemuPid } = await daemon.client.createSandbox({
      sandboxId: 'four',
      spec: { vcpus: 1, readyWhen: 'READY_WHEN_STARTED' },
    });
    const ended = assert.rejects(daemon.client.attach({ sandboxId: 'four', volumeId: 'v', spec: spec(path, SLOW_MS) }));
    await atWork(path);
    await killQemu(qemuPid);
    await ended;
    await removed('four');
    assert.deepEqual(await shape(path), EMPTY);
    await daemon.client.deleteSandbox('four');
  });

  /** As `interrupted`, on a device. QEMU has begun once the journal says so; it derives the key before it writes. */
  async function interruptedOn(sandboxId: string, path: string): Promise<number> {
    const { qemuPid } = await daemon.client.createSandbox({
      sandboxId,
      spec: { vcpus: 1, readyWhen: 'READY_WHEN_STARTED' },
    });
    const device = {
      blockDevice: { path },
      ...hostLuks({ key: { file: `${daemon.keyDir}/key` }, iterationMs: SLOW_MS }),
    };
    const ended = assert.rejects(daemon.client.attach({ sandboxId, volumeId: 'v', spec: device }));
    const journal = join(daemon.directoryOf(sandboxId), 'state.json');
    await until('the intent on disk', async () =>
      (await readFile(journal, 'utf8')).includes('"creating":{"sourceBytes":0}'),
    );
    await daemon.kill('SIGKILL');
    await ended;
    return qemuPid;
  }

  await it('a block device, the daemon is killed: the next one takes it back from QEMU', async (context) => {
    await using device = await loopDevice(8 * MIB);
    if (device === undefined) {
      context.skip('no loop device can be had here');
      return;
    }
    await interruptedOn('dev', device.path);
    const { path } = device;
    await until('QEMU has written the header', async () => (await readAt(path, 0, 4)).toString() === 'LUKS');
    await restart();
    await removed('dev');
    assert.ok((await readAt(path, 0, 8 * MIB)).every((byte) => byte === 0));
    await daemon.client.deleteSandbox('dev');
  });

  await it('a block device, both are killed, and somebody formats it: it is left as it is', async (context) => {
    await using device = await loopDevice(8 * MIB);
    if (device === undefined) {
      context.skip('no loop device can be had here');
      return;
    }
    await killQemu(await interruptedOn('dev2', device.path));
    const { path } = device;
    // As cryptsetup luksFormat does, which no lock shows.
    await writeAt(path, 0, Buffer.from('LUKS\xba\xbe\x00\x02', 'latin1'));
    await writeAt(path, MIB, randomBytes(MIB));
    const before = await fileHash(path);
    await restart();
    await removed('dev2');
    assert.equal(await fileHash(path), before);
    assert.match(await daemon.log(), /QEMU no longer had it open/);
    await daemon.client.deleteSandbox('dev2');
  });

  await it('a VM of somebody else has the empty file: it is refused, and nothing is taken back', async () => {
    const path = await daemon.rawFile('five.raw', SOURCE_BYTES);
    await using _other = await otherVm(path);
    const before = await stat(path);
    await daemon.client.createSandbox({ sandboxId: 'five', spec: { vcpus: 1, readyWhen: 'READY_WHEN_STARTED' } });
    const refused = await refusal(daemon.client.attach({ sandboxId: 'five', volumeId: 'v', spec: spec(path, 20) }));
    assertRefusal(refused, { code: 'FAILED_PRECONDITION', reason: 'BACKING_IN_USE' });
    await removed('five');
    const now = await stat(path);
    assert.deepEqual([now.mtimeMs, now.size], [before.mtimeMs, before.size], 'not even its size was set');
  });
});
