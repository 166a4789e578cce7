import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { Event__Output } from '../../src/grpc/generated/qshim/v1/Event.ts';
import { bareQemuBinary } from '../support/bare-qemu.ts';
import { TestDaemon } from '../support/daemon.ts';
import { outcome } from '../support/grpc-errors.ts';
import { realVmSkipReason } from '../support/guest-image.ts';
import { until } from '../support/until.ts';
import { qemuInventory } from '../support/leaks.ts';

const skip = await realVmSkipReason();
const MIB = 1024 * 1024;

await describe('a daemon that comes back', { skip }, async () => {
  await it('adopts VM and volumes after kill -9: same boot, same bytes, same records; detach still works', async () => {
    const first = await TestDaemon.start();
    const created = await first.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1, labels: { a: 'b' } } });
    const plainPath = await first.rawFile('plain.raw');
    const mountPath = await first.rawFile('mount.raw', 32 * MIB);
    const plain = { rawFile: { path: plainPath } };
    const mount = { fsType: 'ext4', mountPoint: '/mnt/m', options: [], format: 'FORMAT_IF_EMPTY' as const };
    const before = await first.client.attach({ sandboxId: 'vm', volumeId: 'plain', spec: plain });
    await first.client.attach({ sandboxId: 'vm', volumeId: 'mnt', spec: { rawFile: { path: mountPath }, mount } });
    const bootId = await first.client.guest('vm', 'cat /proc/sys/kernel/random/boot_id');
    await first.client.guest('vm', 'dd if=/dev/urandom of=/mnt/m/file bs=1M count=2 2>/dev/null; sync');
    const sum = await first.client.guest('vm', 'sha256sum < /mnt/m/file');
    const inventory = await qemuInventory(created.stateDir, created.qemuPid);
    await first.kill('SIGKILL');

    await using second = await TestDaemon.start({ directory: first.directory });
    const adopted = await second.client.getSandbox('vm');
    assert.equal(adopted.state, 'SANDBOX_STATE_RUNNING');
    assert.equal(adopted.qemuPid, created.qemuPid);
    assert.deepEqual(adopted.spec, created.spec);
    await until('the agent', async () => (await second.client.getSandbox('vm')).agentReady);
    assert.equal(await second.client.guest('vm', 'cat /proc/sys/kernel/random/boot_id'), bootId);
    assert.equal(await second.client.guest('vm', 'sha256sum < /mnt/m/file'), sum);
    assert.deepEqual(await qemuInventory(created.stateDir, created.qemuPid), inventory);
    // The same Attach again is answered as the first time was.
    const repeated = await second.client.attach({ sandboxId: 'vm', volumeId: 'plain', spec: plain });
    assert.equal(repeated.generation, before.generation);
    assert.equal(repeated.guestDevice, before.guestDevice);
    await second.client.detach({ sandboxId: 'vm', volumeId: 'mnt' });
    await second.client.detach({ sandboxId: 'vm', volumeId: 'plain' });
    const left = await qemuInventory(created.stateDir, created.qemuPid);
    assert.deepEqual(left.blockNodes, []);
  });

  for (const damage of ['half-written', 'garbage'] as const) {
    await it(`adopts from QEMU itself when the journal is ${damage}`, async () => {
      const first = await TestDaemon.start();
      const created = await first.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1, volumeCapacity: 31 } });
      const path = await first.rawFile('a.raw');
      const before = await first.client.attach({
        sandboxId: 'vm',
        volumeId: 'a',
        spec: { rawFile: { path }, cache: 'CACHE_MODE_WRITETHROUGH', serial: 'given', logicalBlockSize: 4096 },
      });
      const sum = await first.client.guest(
        'vm',
        `dd if=/dev/urandom of=/tmp/r bs=1M count=2 2>/dev/null; dd if=/tmp/r of=${before.guestDevice} conv=fsync 2>/dev/null; sha256sum < /tmp/r`,
      );
      await first.kill('SIGKILL');
      const journal = join(created.stateDir, 'state.json');
      if (damage === 'garbage') await writeFile(journal, 'not json at all');
      else await truncate(journal, 200);

      await using second = await TestDaemon.start({ directory: first.directory });
      const adopted = await second.client.getSandbox('vm');
      assert.equal(adopted.state, 'SANDBOX_STATE_RUNNING');
      assert.equal(adopted.qemuPid, created.qemuPid);
      assert.equal(adopted.volumeCapacity, 31);
      await until('attached', async () =>
        (await second.client.listVolumes('vm')).some(({ state }) => state === 'VOLUME_STATE_ATTACHED'),
      );
      const volume = await second.client.getVolume('vm', 'a');
      assert.deepEqual(
        { ...volume.spec, aio: '' },
        { ...before.spec, aio: '' },
        'the spec as QEMU knows it is the spec as it was asked for',
      );
      assert.equal(volume.pciPath, before.pciPath);
      assert.equal(volume.generation, before.generation);
      // The unreadable file is set aside, and the log names it.
      const aside = (await readdir(created.stateDir)).find((name) => name.startsWith('state.json.corrupt-'));
      assert.ok(aside !== undefined);
      assert.ok((await second.log()).includes(aside));
      // The file is claimed again: nobody else may write it.
      const other = await outcome(
        second.client.attach({ sandboxId: 'vm', volumeId: 'b', spec: { rawFile: { path } } }),
      );
      assert.ok(!other.ok);
      await second.client.detach({ sandboxId: 'vm', volumeId: 'a' });
      const onHost = createHash('sha256')
        .update((await readFile(path)).subarray(0, 2 * MIB))
        .digest('hex');
      assert.equal(onHost, sum.split(' ', 1)[0]);
    });
  }

  await it('finishes what was begun: a boot, a detach in progress, a stop', async () => {
    const first = await TestDaemon.start();
    const create = outcome(first.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } }));
    await until(
      'qemu runs',
      async () => (await outcome(first.client.getSandbox('vm'))).ok && (await first.log()).includes('qmp connected'),
    );
    await first.kill('SIGKILL');
    assert.equal((await create).ok, false);
    const second = await TestDaemon.start({ directory: first.directory });
    // The repeated Create joins the boot that the first daemon began.
    const created = await second.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
    assert.equal(created.agentReady, true);
    const path = await second.rawFile('d.raw');
    await second.client.attach({ sandboxId: 'vm', volumeId: 'd', spec: { rawFile: { path } } });
    process.kill(created.qemuPid, 'SIGSTOP');
    const detach = outcome(second.client.detach({ sandboxId: 'vm', volumeId: 'd' }));
    await until('detaching', async () => (await second.client.getVolume('vm', 'd')).state === 'VOLUME_STATE_DETACHING');
    await sleep(100);
    await second.kill('SIGKILL');
    assert.equal((await detach).ok, false);
    process.kill(created.qemuPid, 'SIGCONT');
    await using third = await TestDaemon.start({ directory: first.directory });
    await until('removed', async () => (await third.client.getVolume('vm', 'd')).state === 'VOLUME_STATE_REMOVED');
    assert.deepEqual((await qemuInventory(created.stateDir, created.qemuPid)).blockNodes, []);
    const stopped = await third.client.stopSandbox({ sandboxId: 'vm' });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
  });

  await it('reports a VM that died meanwhile, and never touches one that is not its own', async () => {
    const first = await TestDaemon.start();
    const created = await first.client.createSandbox({ sandboxId: 'vm', spec: { readyWhen: 'READY_WHEN_STARTED' } });
    // A QEMU of somebody else's, with a QMP socket in a directory of its own.
    const foreign = execa(
      bareQemuBinary,
      [
        '-nodefaults',
        '-display',
        'none',
        '-machine',
        'none',
        '-qmp',
        `unix:${first.directory}/foreign.sock,server=on,wait=off`,
      ],
      { reject: false },
    );
    try {
      await first.kill('SIGKILL');
      process.kill(created.qemuPid, 'SIGKILL');
      await until('dead', () =>
        execa('kill', ['-0', String(created.qemuPid)], { reject: false }).then((r) => r.exitCode !== 0),
      );
      await using second = await TestDaemon.start({ directory: first.directory });
      const found = await second.client.getSandbox('vm');
      assert.equal(found.state, 'SANDBOX_STATE_STOPPED');
      assert.equal(found.cause?.reason, 'QEMU_EXITED');
      assert.equal((await second.client.listSandboxes()).length, 1);
      await second.client.deleteSandbox('vm');
      assert.equal(foreign.exitCode, null, 'the foreign QEMU still runs');
    } finally {
      foreign.kill('SIGKILL');
      await foreign;
    }
  });

  await it('goes on with the event stream: numbers continue, nothing is missed, what is too old is said to be', async () => {
    const first = await TestDaemon.start({ config: { events_retained: 40 } });
    await first.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1 } });
    const path = await first.rawFile('e.raw');
    await first.client.attach({ sandboxId: 'vm', volumeId: 'e', spec: { rawFile: { path } } });
    const seen = await eventsUntil(first, 1, (event) => event.type === 'volume.attached');
    await first.kill('SIGKILL');
    await using second = await TestDaemon.start({ directory: first.directory, config: { events_retained: 40 } });
    await second.client.detach({ sandboxId: 'vm', volumeId: 'e' });
    const all = await eventsUntil(second, 1, (event) => event.type === 'volume.removed');
    assert.deepEqual(
      all.map(({ sequence }) => sequence),
      all.map((_, index) => index + 2),
      'numbers without gaps',
    );
    assert.deepEqual(all.slice(0, seen.length), seen);
    for (let round = 0; round < 12; round += 1) {
      await second.client.attach({ sandboxId: 'vm', volumeId: 'e', spec: { rawFile: { path } } });
      await second.client.detach({ sandboxId: 'vm', volumeId: 'e' });
    }
    await assert.rejects(
      eventsUntil(second, 1, () => false),
      /are retained/,
    );
  });
});

/** Events after number `after` until one that fits has come. */
async function eventsUntil(
  daemon: TestDaemon,
  after: number,
  fits: (event: Event__Output) => boolean,
): Promise<readonly Event__Output[]> {
  const stream = daemon.client.events.watch({ afterSequence: after });
  const seen: Event__Output[] = [];
  try {
    for await (const message of stream) {
      const event = message as Event__Output;
      seen.push(event);
      if (fits(event)) break;
    }
  } finally {
    stream.cancel();
  }
  return seen;
}
