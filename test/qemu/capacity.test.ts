import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { TestDaemon } from '../support/daemon.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { qemuInventory } from '../support/leaks.ts';

const skip = await realVmSkipReason();
const FILE_BYTES = 1024 * 1024;
const BATCH = 32;
/** Tells a disk that never comes or goes from a machine that is busy. */
const PATIENT_MS = 300_000;

/** The n-th volume; its file begins with its own name. */
const nameOf = (index: number): string => `disk-${index}`;

async function markedFile(daemon: TestDaemon, volumeId: string): Promise<string> {
  const path = await daemon.rawFile(`${volumeId}.raw`, FILE_BYTES);
  await using file = await open(path, 'r+');
  await file.write(`${volumeId}\n`);
  return path;
}

/** Attaches so many in batches, and answers with the volumes. */
async function attachAll(daemon: TestDaemon, sandboxId: string, count: number) {
  for (let first = 0; first < count; first += BATCH) {
    const ids = Array.from({ length: Math.min(BATCH, count - first) }, (_, index) => nameOf(first + index));
    const volumes = await Promise.all(
      ids.map(async (volumeId) => ({ volumeId, spec: { rawFile: { path: await markedFile(daemon, volumeId) } } })),
    );
    for (const { problem, volume } of await daemon.client.attachMany({ sandboxId, volumes, timeoutMs: PATIENT_MS })) {
      assert.equal(problem, null);
      assert.equal(volume?.state, 'VOLUME_STATE_ATTACHED');
    }
  }
  return await daemon.client.listVolumes(sandboxId);
}

/** Reads what each disk begins with, writes an answer behind it, and gives "device serial first-line" of each. */
const TOUCH = `
for disk in /sys/block/vd*; do
  name=\${disk##*/}
  serial=$(cat $disk/serial)
  line=$(head -c 64 /dev/$name | head -n 1)
  echo "seen $serial" | dd of=/dev/$name bs=512 seek=8 conv=fsync 2>/dev/null
  echo "/dev/$name $serial $line"
done`;

/** Every volume is what the daemon says, in the guest and in QEMU; and bytes go through it both ways. */
async function verifyAll(daemon: TestDaemon, sandboxId: string, count: number): Promise<void> {
  const volumes = await daemon.client.listVolumes(sandboxId);
  assert.equal(volumes.length, count);
  const said = volumes.map(({ guestDevice, serial, volumeId }) => `${guestDevice} ${serial} ${volumeId}`);
  const seen = (await daemon.client.guest(sandboxId, TOUCH)).trim().split('\n');
  assert.deepEqual(seen.sort(), said.sort());
  const sandbox = await daemon.client.getSandbox(sandboxId);
  const inventory = await qemuInventory(sandbox.stateDir, sandbox.qemuPid);
  assert.equal(inventory.peripherals.filter((name) => name.startsWith('vol-')).length, count);
  for (const { volumeId, spec } of volumes) {
    await using file = await open(spec?.rawFile?.path ?? '');
    const { buffer, bytesRead } = await file.read(Buffer.alloc(64), 0, 64, 8 * 512);
    assert.match(buffer.toString('utf8', 0, bytesRead), new RegExp(`^seen ${volumeId}\n`));
  }
}

await describe('as many volumes as there are slots', { skip }, async () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
  });
  after(() => daemon[Symbol.asyncDispose]());

  await it('has 155 slots by default', async () => {
    const sandbox = await daemon.client.createSandbox({
      sandboxId: 'default',
      spec: { readyWhen: 'READY_WHEN_STARTED' },
    });
    assert.equal(sandbox.volumeCapacity, 155);
    assert.equal(sandbox.capacity?.volumes, 155);
    await daemon.client.deleteSandbox('default');
  });

  await it('two vCPUs drive 150 volumes at once', async () => {
    await daemon.client.createSandbox({ sandboxId: 'two', spec: { vcpus: 2 } });
    const volumes = await attachAll(daemon, 'two', 150);
    await verifyAll(daemon, 'two', 150);
    const modes = new Set(volumes.map(({ interrupts }) => interrupts));
    assert.deepEqual([...modes].sort(), ['INTERRUPT_MODE_PER_QUEUE', 'INTERRUPT_MODE_SHARED']);
    const { capacity } = await daemon.client.getSandbox('two');
    assert.equal(capacity?.inUse, 150);
    assert.ok(capacity.interruptVectorsInUse <= capacity.interruptVectors);
    const ids = volumes.map(({ volumeId }) => volumeId);
    const detached = await daemon.client.detachMany({ sandboxId: 'two', volumeIds: ids, timeoutMs: PATIENT_MS });
    for (const { problem } of detached) assert.equal(problem, null);
    const left = (await daemon.client.getSandbox('two')).capacity;
    assert.deepEqual([left?.inUse, left?.interruptVectorsInUse], [0, 0]);
    await daemon.client.deleteSandbox('two');
  });

  await it('one vCPU drives 128, the last of them over interrupt lines', async () => {
    await daemon.client.createSandbox({ sandboxId: 'one', spec: { vcpus: 1 } });
    const volumes = await attachAll(daemon, 'one', 128);
    await verifyAll(daemon, 'one', 128);
    const lines = volumes.filter(({ interrupts }) => interrupts === 'INTERRUPT_MODE_LINE');
    assert.equal(lines.length, 40);
    assert.match((await daemon.client.getSandbox('one')).capacity?.limit ?? '', /vectors for 88 volumes/);
    await daemon.client.deleteSandbox('one');
  });
});
