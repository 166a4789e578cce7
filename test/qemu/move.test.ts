import assert from 'node:assert/strict';
import { readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import type { MigrateVolumeRequest } from '../../src/grpc/generated/qshim/v1/MigrateVolumeRequest.ts';
import type { Operation__Output as Operation } from '../../src/grpc/generated/qshim/v1/Operation.ts';
import { CheckedWrites } from '../support/checked-writes.ts';
import { call, TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { loopDevice } from '../support/loop-device.ts';
import { NbdServerProcess } from '../support/nbd.ts';
import { until } from '../support/until.ts';

/** Moves of a disk that a guest writes to all the while; bytes are compared on the host. */

const MIB = 1024 * 1024;
const SIZE = 48 * MIB;
const BLOCKS = SIZE / 4096;
const skip = await realVmSkipReason();

await describe('move', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    // Loop devices, and the daemon's own directory of volumes.
    daemon = await TestDaemon.start({ config: { allowed_roots: '/dev,/tmp' } });
    await daemon.client.createSandbox({ sandboxId: 'vm' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  const migrate = (volumeId: string, request: MigrateVolumeRequest): Promise<Operation> =>
    call((done) => daemon.client.volumes.migrate({ sandboxId: 'vm', volumeId, ...request }, done));
  const get = (operationId: string): Promise<Operation> =>
    call((done) => daemon.client.operations.get({ sandboxId: 'vm', operationId }, done));
  const cancel = (operationId: string): Promise<Operation> =>
    call((done) => daemon.client.operations.cancel({ sandboxId: 'vm', operationId }, done));
  const ended = async ({ operationId }: Operation): Promise<Operation> => {
    await until('the move has ended', async () => (await get(operationId)).endedAt !== null);
    return await get(operationId);
  };
  const moved = async (volumeId: string, request: MigrateVolumeRequest): Promise<void> => {
    const end = await ended(await migrate(volumeId, request));
    assert.equal(end.state, 'OPERATION_STATE_SUCCEEDED', JSON.stringify(end.problem));
  };
  const attach = async (volumeId: string): Promise<{ readonly path: string; readonly device: string }> => {
    const path = await daemon.rawFile(`${volumeId}.raw`, SIZE);
    const { guestDevice } = await daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { rawFile: { path } } });
    return { path, device: guestDevice };
  };
  /** Bytes of an image, read as QEMU reads them. */
  const bytesOf = async (format: string, source: string): Promise<Buffer> => {
    const copy = join(daemon.directory, 'copy.raw');
    await execa('qemu-img', ['convert', '-f', format, '-O', 'raw', source, copy]);
    return await readFile(copy);
  };

  await it('goes from raw to qcow2, back to raw, to a block device and to an NBD export under writes', async () => {
    const { path, device } = await attach('all');
    const qcow2 = join(daemon.volumeDir, 'all.qcow2');
    const second = join(daemon.volumeDir, 'all-2.raw');
    const writes = await CheckedWrites.begin(daemon.client, 'vm', device, { name: 'all', blocks: BLOCKS });
    await moved('all', { qcow2File: { path: qcow2 }, createIfMissing: true });
    const image = JSON.parse((await execa('qemu-img', ['check', '-U', '--output=json', qcow2])).stdout) as object;
    assert.ok(!('corruptions' in image), JSON.stringify(image));
    // Nobody has the source open any more: its claim is free, and QEMU's lock on it is too.
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'other', spec: { rawFile: { path } } });
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'other' });
    await writeFile(second, 'something else lies here');
    await truncate(second, SIZE);
    assert.equal((await refusal(migrate('all', { rawFile: { path: second } }))).reason, 'TARGET_NOT_EMPTY');
    await moved('all', { rawFile: { path: second }, overwrite: true });
    await using loop = await loopDevice(SIZE);
    if (loop !== undefined) await moved('all', { blockDevice: { path: loop.path } });
    const exported = await daemon.rawFile('exported', SIZE);
    const socket = join(daemon.volumeDir, 'nbd.sock');
    await using _server = await NbdServerProcess.qemuNbd({ path: socket }, exported, 'disk');
    const nbdExport = { socket, exportName: 'disk' };
    assert.equal((await refusal(migrate('all', { nbdExport }))).reason, 'TARGET_NOT_EMPTY');
    await moved('all', { nbdExport, overwrite: true });
    const before = await writes.count();
    await until('the guest writes on', async () => (await writes.count()) > before + 20);
    const count = await writes.end();
    const volume = await daemon.client.getVolume('vm', 'all');
    assert.equal(volume.spec?.nbdExport?.exportName, 'disk');
    assert.equal((await daemon.client.detach({ sandboxId: 'vm', volumeId: 'all' })).state, 'VOLUME_STATE_REMOVED');
    writes.check(await readFile(exported), count);
  });

  await it('a cancel leaves the volume on its source, and takes the file that was made away', async () => {
    const { path, device } = await attach('kept');
    const target = join(daemon.volumeDir, 'kept.qcow2');
    const writes = await CheckedWrites.begin(daemon.client, 'vm', device, { name: 'kept', blocks: BLOCKS });
    await until('something is there', async () => (await writes.count()) > 20);
    const request = { operationId: 'stop-me', qcow2File: { path: target }, createIfMissing: true };
    await migrate('kept', { ...request, pivot: 'PIVOT_ASKED' });
    await until('it is in step', async () => (await get('stop-me')).phase === 'in step');
    assert.ok((await stat(target)).size > 0);
    assert.equal((await migrate('kept', { ...request, pivot: 'PIVOT_ASKED' })).operationId, 'stop-me');
    await cancel('stop-me');
    const end = await ended(await get('stop-me'));
    assert.equal(end.state, 'OPERATION_STATE_CANCELLED');
    await assert.rejects(stat(target), /ENOENT/);
    assert.equal((await daemon.client.getVolume('vm', 'kept')).resolvedSource, path);
    // Once more, to its end: no name of the first one is in the way.
    await migrate('kept', { ...request, operationId: 'go-on', pivot: 'PIVOT_ASKED' });
    await until('it is in step', async () => (await get('go-on')).phase === 'in step');
    await call((done) => daemon.client.volumes.pivot({ sandboxId: 'vm', volumeId: 'kept' }, done));
    assert.equal((await ended(await get('go-on'))).state, 'OPERATION_STATE_SUCCEEDED');
    const count = await writes.end();
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'kept' });
    writes.check(await bytesOf('qcow2', target), count);
  });
});
