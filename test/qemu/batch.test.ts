import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { TestDaemon } from '../support/daemon.ts';
import { outcome } from '../support/grpc-errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { qemuInventory } from '../support/leaks.ts';

const skip = await realVmSkipReason();
const MIB = 1024 * 1024;

await describe('several volumes in one call', { skip }, async () => {
  let daemon: TestDaemon;
  let stateDir: string;
  let pid: number;
  before(async () => {
    daemon = await TestDaemon.start();
    const sandbox = await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 2, volumeCapacity: 31 } });
    stateDir = sandbox.stateDir;
    pid = sandbox.qemuPid;
    const path = await daemon.rawFile('warm.raw');
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'warm', spec: { rawFile: { path } } });
    await daemon.client.detach({ sandboxId: 'vm', volumeId: 'warm' });
  });
  after(() => daemon[Symbol.asyncDispose]());

  async function members(
    prefix: string,
    count: number,
  ): Promise<{ volumeId: string; spec: { rawFile: { path: string } } }[]> {
    return await Promise.all(
      Array.from({ length: count }, async (_, index) => {
        const volumeId = `${prefix}${index}`;
        return { volumeId, spec: { rawFile: { path: await daemon.rawFile(`${volumeId}.raw`, MIB) } } };
      }),
    );
  }

  await it('attaches and detaches sixteen, each with its own bytes, an answer for each in order', async () => {
    const before = await qemuInventory(stateDir, pid);
    const volumes = await members('m', 16);
    const attached = await daemon.client.attachMany({ sandboxId: 'vm', volumes });
    assert.deepEqual(
      attached.map(({ volumeId, problem, volume }) => [volumeId, problem, volume?.state]),
      volumes.map(({ volumeId }) => [volumeId, null, 'VOLUME_STATE_ATTACHED']),
    );
    const script = attached.map(({ volumeId, volume }) => `echo ${volumeId} > ${volume?.guestDevice ?? ''}`).join('; ');
    await daemon.client.guest('vm', `${script}; sync`);
    const detached = await daemon.client.detachMany({ sandboxId: 'vm', volumeIds: volumes.map((one) => one.volumeId) });
    assert.ok(detached.every(({ problem, volume }) => problem === null && volume?.state === 'VOLUME_STATE_REMOVED'));
    for (const { volumeId, spec } of volumes) {
      assert.equal((await readFile(spec.rawFile.path)).subarray(0, volumeId.length + 1).toString(), `${volumeId}\n`);
    }
    assert.deepEqual(await qemuInventory(stateDir, pid), before);
  });

  await it('says of each why it failed, and with atomic leaves what was there before and nothing else', async () => {
    const before = await qemuInventory(stateDir, pid);
    const [kept, ...rest] = await members('x', 4);
    assert.ok(kept !== undefined);
    await daemon.client.attach({ sandboxId: 'vm', ...kept });
    const missing = { volumeId: 'missing', spec: { rawFile: { path: `${daemon.volumeDir}/not-there.raw` } } };
    const volumes = [kept, ...rest, missing];
    const plain = await daemon.client.attachMany({ sandboxId: 'vm', volumes });
    assert.deepEqual(
      plain.map(({ problem }) => problem?.reason),
      [undefined, undefined, undefined, undefined, 'SOURCE_NOT_FOUND'],
    );
    await daemon.client.detachMany({ sandboxId: 'vm', volumeIds: rest.map((one) => one.volumeId) });

    const atomic = await daemon.client.attachMany({ sandboxId: 'vm', volumes, atomic: true });
    assert.deepEqual(
      atomic.map(({ problem }) => problem?.reason),
      [undefined, 'BATCH_UNDONE', 'BATCH_UNDONE', 'BATCH_UNDONE', 'SOURCE_NOT_FOUND'],
    );
    assert.equal((await daemon.client.getVolume('vm', kept.volumeId)).state, 'VOLUME_STATE_ATTACHED');
    for (const { volumeId } of rest) {
      assert.equal((await daemon.client.getVolume('vm', volumeId)).state, 'VOLUME_STATE_REMOVED');
    }
    await daemon.client.detach({ sandboxId: 'vm', volumeId: kept.volumeId });
    assert.deepEqual(await qemuInventory(stateDir, pid), before);
  });

  await it('refuses an empty batch and an id named twice', async () => {
    const [one] = await members('twice', 1);
    assert.ok(one !== undefined);
    for (const volumes of [[], [one, one]]) {
      const refused = await outcome(daemon.client.attachMany({ sandboxId: 'vm', volumes }));
      assert.ok(!refused.ok);
      assert.equal(refused.error.code, 3);
    }
  });

  await it('a plan tells slots, block graph and exact commands, and changes nothing', async () => {
    const before = await qemuInventory(stateDir, pid);
    const [good, clash] = await members('p', 2);
    assert.ok(good !== undefined && clash !== undefined);
    const bad = { volumeId: 'bad/id', spec: { rawFile: { path: '/etc/passwd' }, serial: 'far-too-long-for-a-serial' } };
    const same = { volumeId: 'same', spec: { ...good.spec, serial: good.volumeId } };
    const plans = await daemon.client.plan({ sandboxId: 'vm', volumes: [good, bad, same] });
    assert.deepEqual(await qemuInventory(stateDir, pid), before);
    assert.deepEqual(
      await daemon.client.listVolumes('vm').then((all) => all.filter(({ volumeId }) => volumeId === 'p0')),
      [],
    );
    const [first, second, third] = plans;
    assert.deepEqual(first?.problems, []);
    assert.deepEqual(
      first.steps.map(({ command }) => command).filter((command) => command !== ''),
      ['add-fd', 'blockdev-add', 'device_add'],
    );
    assert.ok((second?.problems.length ?? 0) >= 2, 'every reason, not only the first');
    assert.deepEqual(
      new Set(third?.problems.map(({ reason }) => reason)),
      new Set(['BACKING_IN_USE', 'SERIAL_IN_USE']),
    );
    // What was planned is what is done.
    const attached = await daemon.client.attach({ sandboxId: 'vm', ...good });
    assert.equal(attached.pciPath, first.pciPath);
    const device = JSON.parse(first.steps.find(({ command }) => command === 'device_add')?.arguments ?? '{}') as {
      id?: string;
    };
    assert.ok((await qemuInventory(stateDir, pid)).peripherals.includes(device.id ?? ''));
    await daemon.client.detach({ sandboxId: 'vm', volumeId: good.volumeId });
  });

  await it('a plan says when there are more volumes than slots', async () => {
    const plans = await daemon.client.plan({ sandboxId: 'vm', volumes: await members('many', 32) });
    assert.deepEqual(
      plans.flatMap(({ problems }) => problems.map(({ reason }) => reason)),
      ['NO_SLOT'],
    );
  });
});
