import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { silentLogger } from '../../src/base/log.ts';
import type { IoLimits } from '../../src/grpc/generated/qshim/v1/IoLimits.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { QmpClient } from '../../src/qmp/client.ts';
import { isQmpError } from '../../src/qmp/errors.ts';
import type { BlockInfo } from '../../src/qmp/protocol.ts';
import { completeLimits, limitsSeen, throttleOf, UNLIMITED } from '../../src/volume/model/limits.ts';
import { TestDaemon, call } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

/** What the real QEMU says of limits; the rates are measured by test/live/limits.test.ts. */

const skip = await realVmSkipReason();
const MIB = 1024 * 1024;

await describe('limits of I/O', { skip }, async () => {
  let daemon: TestDaemon;
  let stateDir: string;
  let socket: string;
  before(async () => {
    daemon = await TestDaemon.start();
    const sandbox = await daemon.client.createSandbox({ sandboxId: 'vm', spec: { iothreads: 1 } });
    ({ stateDir } = sandbox);
    socket = join(stateDir, 'spare.sock');
  });
  after(() => daemon[Symbol.asyncDispose]());

  async function attach(volumeId: string, limits: IoLimits | null = null): Promise<Volume__Output> {
    const path = await daemon.rawFile(`${volumeId}.raw`, 8 * MIB);
    return await daemon.client.attach({ sandboxId: 'vm', volumeId, spec: { rawFile: { path }, limits } });
  }

  const limit = (volumeId: string, limits: IoLimits | null): Promise<Volume__Output> =>
    call((done) => daemon.client.volumes.setLimits({ sandboxId: 'vm', volumeId, limits }, done));

  const pathOf = ({ volumeId, generation }: Volume__Output): string =>
    `/machine/peripheral/vol-${generation}-${volumeId}/virtio-backend`;

  /** As somebody else sees it. */
  async function shown(volume: Volume__Output): Promise<NonNullable<BlockInfo['inserted']>> {
    await using qmp = await QmpClient.connect({ path: socket, log: silentLogger() });
    const block = (await qmp.run('query-block')).find(({ qdev }) => qdev === pathOf(volume));
    assert.ok(block?.inserted);
    return block.inserted;
  }

  /** Without what is of a budget. */
  const own = ({ limits }: Volume__Output): unknown => {
    const { budget, share, ...rest } = limits ?? { budget: '', share: 0 };
    assert.deepEqual([budget, share], ['', 0]);
    return rest;
  };

  const EACH = ['iops', 'iopsRead', 'iopsWrite', 'bps', 'bpsRead', 'bpsWrite'] as const;

  await it('each value is read back as it was set, live, over an iothread, with bursts, and none when they are gone', async () => {
    const volume = await attach('a', { iops: 500 });
    assert.equal((await shown(volume)).iops, 500);
    assert.equal(volume.limits?.iops, 500);
    for (const kind of EACH) {
      const asked = completeLimits({ [kind]: 8 * MIB, [`${kind}Max`]: 16 * MIB, [`${kind}MaxLengthS`]: 3 }, 'limits');
      assert.deepEqual(own(await limit('a', asked)), asked);
      assert.deepEqual(limitsSeen(await shown(volume)), asked);
    }
    const sized = completeLimits({ iops: 100, iopsSize: 16_384, bpsWrite: MIB }, 'limits');
    assert.deepEqual(own(await limit('a', sized)), sized);
    assert.deepEqual(own(await limit('a', null)), UNLIMITED);
    assert.deepEqual(limitsSeen(await shown(volume)), UNLIMITED);
  });

  await it('what qshim refuses, QEMU refuses too', async () => {
    const volume = await attach('refused');
    await using qmp = await QmpClient.connect({ path: socket, log: silentLogger() });
    const { generation, volumeId } = volume;
    const wrong: readonly Partial<typeof UNLIMITED>[] = [
      { bps: 10, bpsRead: 5 },
      { iops: 10, iopsWrite: 5 },
      { bpsMax: 10 },
      { bps: 10, bpsMax: 9, bpsMaxLengthS: 1 },
      { bps: 10, bpsMax: 1e15, bpsMaxLengthS: 2 },
      { bps: 1e15 + 1 },
      { bps: 10, iopsSize: 4096 },
      { bps: 10, bpsMaxLengthS: 2 },
    ];
    for (const limits of wrong) {
      assert.throws(() => completeLimits(limits, 'limits'), JSON.stringify(limits));
      const told = throttleOf({ ...UNLIMITED, ...limits }, `vol-${generation}-${volumeId}`);
      await assert.rejects(qmp.run('block_set_io_throttle', { id: pathOf(volume), ...told }), isQmpError);
    }
  });

  await it('volumes of a group are changed together, and go on with it when one leaves', async () => {
    const limits = { bps: 4 * MIB, group: 'pair' };
    const [one, two] = [await attach('one', limits), await attach('two', limits)];
    await limit('two', { bps: 6 * MIB, group: 'pair' });
    assert.equal((await shown(one)).bps, 6 * MIB);
    assert.equal((await shown(one)).group, (await shown(two)).group);
    assert.equal((await daemon.client.getVolume('vm', 'one')).limits?.bps, 6 * MIB);
    await limit('two', { bps: MIB });
    assert.notEqual((await shown(one)).group, (await shown(two)).group);
    assert.equal((await shown(one)).bps, 6 * MIB);
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'one' });
  });

  await it('they outlive the daemon, are kept without its journal, and a volume with a backlog of writes leaves', async () => {
    const volume = await attach('kept', { bps: 64 * 1024, bpsMax: MIB });
    const device = volume.guestDevice;
    await daemon.client.guest('vm', `dd if=/dev/zero of=${device} bs=64k count=100 >/dev/null 2>&1 &`);
    await daemon.kill('SIGKILL');
    daemon = await TestDaemon.start({ directory: daemon.directory });
    assert.deepEqual((await daemon.client.getVolume('vm', 'kept')).limits, volume.limits);
    await daemon.kill('SIGKILL');
    await rm(join(stateDir, 'state.json'));
    daemon = await TestDaemon.start({ directory: daemon.directory });
    const recovered = await until('the volume is known again', async () => {
      const found = await daemon.client.getVolume('vm', 'kept');
      return found.state === 'VOLUME_STATE_ATTACHED' && found;
    });
    assert.deepEqual(recovered.limits, volume.limits);
    assert.deepEqual(limitsSeen(await shown(volume)), own(volume));
    assert.equal((await limit('kept', null)).limits?.bps, 0);
    await until('the agent', async () => (await daemon.client.getSandbox('vm')).agentReady);
    await daemon.client.guest('vm', 'wait; sync');
    const detached = await daemon.client.detach({ sandboxId: 'vm', volumeId: 'kept' });
    assert.equal(detached.state, 'VOLUME_STATE_REMOVED');
  });
});
