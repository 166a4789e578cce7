import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const skip = await realVmSkipReason();

await describe('iothreads', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
  });
  after(() => daemon[Symbol.asyncDispose]());

  /** What QEMU says of the thread, or the threads, that serve a volume. */
  async function servedBy(stateDir: string, device: string): Promise<string[]> {
    await using qmp = await QmpClient.connect({ path: join(stateDir, 'spare.sock'), log: silentLogger() });
    const get = (property: string): Promise<unknown> =>
      qmp.run('qom-get', { path: `/machine/peripheral/${device}`, property });
    const mapping = (await get('iothread-vq-mapping').catch(() => [])) as { iothread: string }[];
    if (mapping.length > 0) return mapping.map(({ iothread }) => iothread);
    return [
      String(await get('iothread'))
        .split('/')
        .at(-1) ?? '',
    ];
  }

  await it('volumes are spread over them, work, are shown, and are known after a restart of the daemon', async () => {
    const sandbox = await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2, iothreads: 2 } });
    const ids = ['a', 'b', 'c'];
    for (const volumeId of ids) {
      const path = await daemon.rawFile(`${volumeId}.raw`);
      const volume = await daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { rawFile: { path } } });
      const { generation, iothreads } = volume;
      assert.deepEqual(await servedBy(sandbox.stateDir, `vol-${generation}-${volumeId}`), iothreads);
      const device = volume.guestDevice;
      const copied = await daemon.client.guest(
        'vm',
        `echo through ${volumeId} | dd of=${device} conv=fsync 2>/dev/null; head -n 1 ${device}`,
      );
      assert.equal(copied.trim(), `through ${volumeId}`);
    }
    const before = await daemon.client.listVolumes('vm');
    assert.equal(new Set(before.flatMap(({ iothreads }) => iothreads)).size, 2);
    await daemon.kill('SIGKILL');
    daemon = await TestDaemon.start({ directory: daemon.directory });
    const after = await daemon.client.listVolumes('vm');
    assert.deepEqual(
      after.map(({ iothreads, interrupts }) => [iothreads, interrupts]),
      before.map(({ iothreads, interrupts }) => [iothreads, interrupts]),
    );
    for (const volumeId of ids) {
      assert.equal((await daemon.client.detach({ sandboxId: 'vm', volumeId })).state, 'VOLUME_STATE_REMOVED');
    }
  });

  await it('a plan names them, and the vectors', async () => {
    const path = await daemon.rawFile('planned.raw');
    const [plan] = await daemon.client.plan({
      sandboxId: 'vm',
      volumes: [{ volumeId: 'planned', spec: { rawFile: { path } } }],
    });
    const step = plan?.steps.find(({ command }) => command === 'device_add');
    assert.match(step?.arguments ?? '', /"vectors":3.*iothread/);
  });

  await it('more than 64 are refused', async () => {
    await assert.rejects(
      daemon.client.createSandbox({ sandboxId: 'many', spec: { iothreads: 65 } }),
      /spec\.iothreads = 65: must be from 0 to 64/,
    );
  });
});
