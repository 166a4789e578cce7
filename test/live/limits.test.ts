import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Budget__Output } from '../../src/grpc/generated/qshim/v1/Budget.ts';
import type { IoLimits } from '../../src/grpc/generated/qshim/v1/IoLimits.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { TestDaemon, call } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { ratesOver, type CountedDisk } from '../support/io-rates.ts';
import { until } from '../support/until.ts';

/**
 * Rates, measured: guests write as much as they can, and QEMU counts what gets through. The limits are so low that a
 * loaded machine reaches them too.
 */

const skip = await realVmSkipReason();
const KIB = 1024;
const MIB = 1024 * KIB;
const MEASURED_MS = 20_000;
/** What has passed at once when the limit came is over by then. */
const SETTLED_MS = 2000;

function assertWithin(share: number, what: string, seen: number, wanted: number): void {
  const off = (seen / wanted - 1) * 100;
  process.stdout.write(`measured ${what}: ${Math.round(seen)} of ${wanted} (${off.toFixed(1)} %)\n`);
  assert.ok(Math.abs(off) <= share * 100, `${what}: ${seen} instead of ${wanted}, ${off.toFixed(1)} % off`);
}

await describe('limits of I/O, measured', { skip, timeout: 600_000 }, async () => {
  let daemon: TestDaemon;
  const sockets = new Map<string, string>();
  before(async () => {
    daemon = await TestDaemon.start();
    const sandboxes = await Promise.all(
      ['one', 'two'].map((sandboxId) => daemon.client.createSandbox({ sandboxId, spec: { vcpus: 2 } })),
    );
    for (const { sandboxId, stateDir } of sandboxes) sockets.set(sandboxId, join(stateDir, 'spare.sock'));
  });
  after(() => daemon[Symbol.asyncDispose]());

  async function attach(sandboxId: string, volumeId: string, limits: IoLimits): Promise<Volume__Output> {
    const path = await daemon.rawFile(`${sandboxId}-${volumeId}.raw`, 64 * MIB);
    return await daemon.client.attach({ sandboxId, volumeId, spec: { rawFile: { path }, limits } });
  }

  const limit = (volumeId: string, limits: IoLimits): Promise<Volume__Output> =>
    call((done) => daemon.client.volumes.setLimits({ sandboxId: 'one', volumeId, limits }, done));

  /** Writes to the disk without an end, in requests of so many bytes that the guest does not join. */
  async function write({ sandboxId, guestDevice: device }: Volume__Output, bytes: number): Promise<void> {
    const dd = `dd if=/dev/zero of=${device} bs=${bytes} count=${(16 * MIB) / bytes} oflag=direct`;
    const loop = `(while [ -e /run/write${device.replaceAll('/', '-')} ]; do ${dd} 2>/dev/null || exit; done) >/dev/null 2>&1 &`;
    await daemon.client.guest(sandboxId, `touch /run/write${device.replaceAll('/', '-')}; ${loop}`);
  }

  async function stopWriting({ sandboxId, guestDevice }: Volume__Output): Promise<void> {
    await daemon.client.guest(sandboxId, `rm -f /run/write${guestDevice.replaceAll('/', '-')}`);
  }

  const disk = ({ sandboxId, volumeId, generation }: Volume__Output): CountedDisk => ({
    socket: sockets.get(sandboxId) ?? '',
    path: `/machine/peripheral/vol-${generation}-${volumeId}/virtio-backend`,
  });

  async function detach(...volumes: readonly Volume__Output[]): Promise<void> {
    for (const volume of volumes) await stopWriting(volume);
    for (const { sandboxId, volumeId } of volumes) {
      await daemon.client.detach({ sandboxId, volumeId, force: true });
    }
  }

  await it('bytes and operations: within 10 % of the limit over 20 s, and the same when it is changed under load', async () => {
    const volume = await attach('one', 'single', { bps: 2 * MIB });
    await write(volume, 64 * KIB);
    const rate = async (): Promise<{ readonly bytes: number; readonly operations: number }> => {
      await ratesOver(SETTLED_MS, [disk(volume)]);
      const [seen] = await ratesOver(MEASURED_MS, [disk(volume)]);
      assert.ok(seen);
      return seen;
    };
    assertWithin(0.1, 'bytes a second', (await rate()).bytes, 2 * MIB);
    await limit('single', { bpsWrite: 512 * KIB });
    assertWithin(0.1, 'bytes a second, changed under load', (await rate()).bytes, 512 * KIB);
    await limit('single', { iops: 20 });
    assertWithin(0.1, 'operations a second', (await rate()).operations, 20);
    await detach(volume);
  });

  await it('a group of four: within 10 % of its budget, and each not below 80 % of its fair share', async () => {
    const limits = { bps: 4 * MIB, group: 'four' };
    const volumes: Volume__Output[] = [];
    for (const volumeId of ['a', 'b', 'c', 'd']) volumes.push(await attach('one', volumeId, limits));
    for (const volume of volumes) await write(volume, 64 * KIB);
    await ratesOver(SETTLED_MS, volumes.map(disk));
    const rates = await ratesOver(MEASURED_MS, volumes.map(disk));
    assertWithin(
      0.1,
      'bytes a second of the group',
      rates.reduce((sum, { bytes }) => sum + bytes, 0),
      4 * MIB,
    );
    for (const [index, { bytes }] of rates.entries()) {
      process.stdout.write(`measured member ${index}: ${Math.round((bytes / MIB) * 100)} % of its share\n`);
      assert.ok(bytes >= 0.8 * MIB, `member ${index} got ${bytes} of ${MIB}`);
    }
    await detach(...volumes);
  });

  await it('a budget over two sandboxes: within 10 % of it, by shares, and what one does not use the other has', async () => {
    const budget = 4 * MIB;
    await call((done) => daemon.client.budgets.set({ name: 'tenant', bps: budget }, done));
    const light = await attach('one', 'light', { budget: 'tenant', share: 1 });
    const heavy = await attach('two', 'heavy', { budget: 'tenant', share: 3 });
    const disks = [light, heavy].map(disk);
    for (const volume of [light, heavy]) await write(volume, 64 * KIB);
    await ratesOver(SETTLED_MS, disks);
    const both = await ratesOver(MEASURED_MS, disks);
    assertWithin(0.1, 'bytes a second of the budget', sumOf(both), budget);
    for (const [index, fair] of [budget / 4, (3 * budget) / 4].entries()) {
      const bytes = both[index]?.bytes ?? 0;
      process.stdout.write(`measured member ${index}: ${Math.round((bytes / fair) * 100)} % of its share\n`);
      assert.ok(bytes >= 0.8 * fair, `member ${index} got ${bytes} of ${fair}`);
    }
    await stopWriting(heavy);
    await until('the daemon has seen that it is idle', async () => {
      const { members } = await call<Budget__Output>((done) => daemon.client.budgets.get({ name: 'tenant' }, done));
      return members.some(({ volumeId, bps }) => volumeId === 'light' && bps > 0.9 * budget);
    });
    const alone = await ratesOver(MEASURED_MS, disks);
    assertWithin(0.1, 'bytes a second of the one that is left', sumOf(alone), budget);
    await write(heavy, 64 * KIB);
    await ratesOver(2 * SETTLED_MS, disks);
    const awake = await ratesOver(MEASURED_MS, disks);
    assertWithin(0.1, 'bytes a second of the budget, awake again', sumOf(awake), budget);
    const bytes = awake[1]?.bytes ?? 0;
    assert.ok(bytes >= (0.8 * 3 * budget) / 4, `the one that woke up got ${bytes}`);
    await detach(light, heavy);
  });
});

function sumOf(rates: readonly { readonly bytes: number }[]): number {
  return rates.reduce((sum, { bytes }) => sum + bytes, 0);
}
