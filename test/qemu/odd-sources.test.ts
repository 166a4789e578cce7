import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { execa } from 'execa';
import { TestDaemon } from '../support/daemon.ts';
import { refusal } from '../support/errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const skip = await realVmSkipReason();
const MIB = 1024 * 1024;

/** Sources whose length is no multiple of 512: QEMU's io_uring hangs on their last part, and the whole VM with it. */
await describe('sources that end amid a sector', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
  });
  after(() => daemon[Symbol.asyncDispose]());

  const alive = async (): Promise<void> => {
    assert.equal(await daemon.client.guest('vm', 'echo lives'), 'lives\n');
    const { agentReady, qemuUnresponsive, runState } = await daemon.client.getSandbox('vm');
    assert.deepEqual([agentReady, qemuUnresponsive, runState], [true, false, 'running']);
  };

  await it('a qcow2 image whose download broke off: opened without io_uring, and the VM lives', async () => {
    const path = `${daemon.volumeDir}/short.qcow2`;
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', path, '64M']);
    await truncate(path, 70_000);
    const spec = { qcow2File: { path } };
    const asked = await refusal(
      daemon.client.attach({ sandboxId: 'vm', volumeId: 'a', spec: { ...spec, aio: 'AIO_MODE_IO_URING' } }),
    );
    assert.deepEqual([asked.code, asked.reason], ['FAILED_PRECONDITION', 'SOURCE_NOT_USABLE']);
    await alive();
    const attached = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'a', spec });
    assert.equal(attached.aio, 'AIO_MODE_THREADS');
    await alive();
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'a' });
    await alive();
  });

  await it('a raw file that shrinks to an odd length while the guest reads it: a detach by force ends, and says how', async () => {
    const path = `${daemon.volumeDir}/shrunk.raw`;
    await writeFile(path, randomBytes(16 * MIB));
    const { guestDevice } = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'b', spec: { rawFile: { path } } });
    await truncate(path, 8 * MIB + 70_001);
    await daemon.client.guest('vm', `dd if=${guestDevice} of=/dev/null bs=64k > /dev/null 2>&1 < /dev/null &`);
    const request = { sandboxId: 'vm', volumeId: 'b', force: true, timeoutMs: 30_000 };
    const ended = await daemon.client
      .detach(request)
      .catch((error: unknown) => refusal(Promise.reject(error as Error)));
    if ('state' in ended) assert.equal(ended.state, 'VOLUME_STATE_REMOVED');
    else assert.ok(['GUEST_HOLDS_VOLUME', 'QEMU_UNRESPONSIVE'].includes(ended.reason), ended.reason);
  });
});
