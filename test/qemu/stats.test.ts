import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { execa } from 'execa';
import type { OperationStats__Output } from '../../src/grpc/generated/qshim/v1/OperationStats.ts';
import type { VolumeStats__Output } from '../../src/grpc/generated/qshim/v1/VolumeStats.ts';
import { TestDaemon, type ApiClient } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';

/** What a real QEMU has counted, against what the guest is known to have done. */

const skip = await realVmSkipReason();
const MIB = 1024 * 1024;

async function looked(client: ApiClient, volumeId: string): Promise<VolumeStats__Output> {
  const [stats] = (await client.getStats({ sandboxId: 'vm', volumeId, fresh: true })).volumes;
  assert.ok(stats !== undefined);
  return stats;
}

/** With its histograms, which are set a moment after the attach. */
async function counting(client: ApiClient, volumeId: string): Promise<VolumeStats__Output> {
  return await until('the latencies are counted', async () => {
    const stats = await looked(client, volumeId);
    return stats.write?.latency === null ? undefined : stats;
  });
}

/** How much more of one kind the second look has seen. */
function more(
  before: OperationStats__Output | null,
  after: OperationStats__Output | null,
): { readonly bytes: number; readonly operations: number; readonly failed: number; readonly counted: number } {
  assert.ok(before !== null && after !== null);
  const counted = ({ latency }: OperationStats__Output): number =>
    (latency?.counts ?? []).reduce((sum, count) => sum + count, 0);
  return {
    bytes: (after.bytes ?? 0) - (before.bytes ?? 0),
    operations: after.operations - before.operations,
    failed: after.failed - before.failed,
    counted: counted(after) - counted(before),
  };
}

await describe('what QEMU has counted', { skip }, async () => {
  await it('every byte that the guest writes and reads, and how long each request took, over an adoption', async () => {
    await using daemon = await TestDaemon.start();
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1, iothreads: 1 } });
    const path = await daemon.rawFile('v.raw', 64 * MIB);
    const { guestDevice } = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec: { rawFile: { path } } });
    const before = await counting(daemon.client, 'v');
    const seek = 8;
    await daemon.client.guest(
      'vm',
      `dd if=/dev/zero of=${guestDevice} bs=65536 count=64 seek=${seek} oflag=direct 2>/dev/null;
       dd if=${guestDevice} of=/dev/null bs=65536 count=32 iflag=direct 2>/dev/null; sync`,
    );
    const after = await looked(daemon.client, 'v');
    const written = more(before.write, after.write);
    assert.deepEqual([written.bytes, written.failed], [64 * 65_536, 0]);
    assert.ok(written.operations > 0);
    assert.equal(written.counted, written.operations, 'each is in the histogram once');
    const read = more(before.read, after.read);
    assert.ok(read.bytes >= 32 * 65_536 && read.counted === read.operations, JSON.stringify(read));
    assert.equal(after.writtenTo, (64 + seek) * 65_536);
    assert.equal(after.sourceWrittenTo, after.writtenTo, 'a raw file is written where the guest writes');
    assert.ok((after.write?.timeNs ?? 0) > (before.write?.timeNs ?? 0) && after.idleNs !== undefined);
    assert.ok((after.derived?.write?.queueDepth ?? 0) > 0);
    await daemon.kill('SIGKILL');
    await using next = await TestDaemon.start({ directory: daemon.directory });
    const adopted = await until('the next daemon has looked', async () => {
      const [stats] = (await next.client.getStats({ sandboxId: 'vm', fresh: true })).volumes;
      return stats?.lookedAt ? stats : undefined;
    });
    assert.deepEqual(more(after.write, adopted.write), { bytes: 0, operations: 0, failed: 0, counted: 0 });
    assert.equal(adopted.generation, 1);
    await next.client.deleteSandbox('vm');
  });

  await it('failures that the guest was told of, and those that are none', async (context) => {
    await using daemon = await TestDaemon.start();
    const small = join(daemon.volumeDir, 'small');
    await mkdir(small);
    const mounted = await execa('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', small], { reject: false });
    if (mounted.exitCode !== 0) {
      context.skip(`no tmpfs can be mounted: ${mounted.stderr}`);
      return;
    }
    try {
      await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
      const path = await daemon.rawFile('small/volume.raw', 16 * MIB);
      const spec = { rawFile: { path }, writeErrors: 'IO_ERROR_POLICY_REPORT' } as const;
      const { guestDevice } = await daemon.client.attach({ sandboxId: 'vm', volumeId: 'v', spec });
      const before = await counting(daemon.client, 'v');
      const write = `dd if=/dev/urandom of=${guestDevice} bs=1M count=8 oflag=direct`;
      assert.notEqual((await daemon.client.exec('vm', write)).exitCode, 0);
      const after = await looked(daemon.client, 'v');
      const written = more(before.write, after.write);
      assert.ok(written.failed > 0, 'what the host had no room for');
      assert.equal(written.counted, written.operations + written.failed, 'failed ones took their time too');
      assert.ok(written.bytes < 8 * MIB && (after.health?.errors ?? 0) > 0);
      assert.equal(more(before.read, after.read).failed, 0);
      await daemon.client.deleteSandbox('vm');
    } finally {
      await execa('umount', [small]);
    }
  });
});
