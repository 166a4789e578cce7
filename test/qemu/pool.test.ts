import assert from 'node:assert/strict';
import { copyFile, mkdtemp, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { OptionName } from '../../src/config.ts';
import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import { POOL_DIRECTORY_PREFIX } from '../../src/template/pool.ts';
import { TestDaemon } from '../support/daemon.ts';
import { KERNEL, realVmSkipReason } from '../support/guest-image.ts';
import { qemuProcessesBelow } from '../support/leaks.ts';
import { endHoldersBelow } from '../support/template-holders.ts';
import { until } from '../support/until.ts';

/** The warm pool: sandboxes that were started before they were asked for. */

const spec = { accelerator: 'ACCELERATOR_TCG', memoryMib: 256, template: 'TEMPLATE_REQUIRED' } as const;

describe('the warm pool', { skip: await realVmSkipReason() }, () => {
  let root = '';

  before(async () => {
    root = await mkdtemp('/dev/shm/qshim-t-');
  });

  after(async () => {
    await endHoldersBelow(root);
    await rm(root, { recursive: true });
  });

  const start = (config: Partial<Record<OptionName, string | number>>, directory?: string): Promise<TestDaemon> =>
    TestDaemon.start({
      config: { templates_dir: join(root, 'templates'), pool_size: 1, ...config },
      ...(directory !== undefined && { directory }),
    });

  /** Waits until so many members are ready, by what the daemon says of them. */
  const untilReady = async (daemon: TestDaemon, members: number): Promise<void> => {
    await until(`${members} pool members`, async () => count(await daemon.log(), 'pool member ready') === members);
  };

  it('a sandbox from the pool is a machine of its own, and the pool is filled again', async () => {
    await using daemon = await start({});
    const { client } = daemon;
    const first = await client.createSandbox({ sandboxId: 'first', spec });
    assert.equal(first.start?.kind, 'START_KIND_CLONE');
    await untilReady(daemon, 1);
    const made: Sandbox__Output[] = [];
    for (const [index, sandboxId] of ['a.b', 'c'].entries()) {
      made.push(await client.createSandbox({ sandboxId, spec: { ...spec, labels: { own: sandboxId } } }));
      await untilReady(daemon, index + 2);
    }
    assert.deepEqual(
      made.map(({ start }) => [start?.kind, start?.templateId]),
      made.map(() => ['START_KIND_POOL', first.start?.templateId]),
    );
    assert.deepEqual(
      made.map(({ state, agentReady, spec: its }) => [state, agentReady, its?.labels]),
      ['a.b', 'c'].map((own) => ['SANDBOX_STATE_RUNNING', true, { own }]),
    );
    const identities = await Promise.all(
      ['first', 'a.b', 'c'].map((id) =>
        client.guest(
          id,
          'cat /sys/class/dmi/id/product_uuid /proc/sys/kernel/random/boot_id; head -c 8 /dev/urandom | od -An -tx1',
        ),
      ),
    );
    const lines = identities.flatMap((text) => text.trim().split('\n'));
    assert.equal(lines.length, 9);
    assert.equal(new Set(lines).size, 9, lines.join('; '));
    assert.equal(await client.guest('a.b', 'hostname'), 'a-b\n');
    assert.ok(Math.abs(Number(await client.guest('c', 'date +%s')) - Date.now() / 1000) < 2);
    // It takes volumes as any other.
    const path = await daemon.rawFile('disk.raw');
    const attached = await client.attach({ sandboxId: 'c', volumeId: 'v', spec: { rawFile: { path } } });
    assert.equal(await client.guest('c', `[ -b ${attached.guestDevice} ] && echo there`), 'there\n');
    await client.detach({ sandboxId: 'c', volumeId: 'v' });
    const stopped = await client.stopSandbox({ sandboxId: 'c' });
    assert.equal(stopped.state, 'SANDBOX_STATE_STOPPED');
  });

  for (const journal of ['whole', 'lost'] as const) {
    it(`after kill -9 sandboxes of the pool are adopted, members ended; the journal is ${journal}`, async () => {
      const first = await start({});
      await first.client.createSandbox({ sandboxId: 'first', spec });
      await untilReady(first, 1);
      const taken = await first.client.createSandbox({ sandboxId: 'taken', spec });
      assert.equal(taken.start?.kind, 'START_KIND_POOL');
      await untilReady(first, 2);
      assert.equal((await qemuProcessesBelow(first.stateDir)).length, 3);
      await first.kill('SIGKILL');
      if (journal === 'lost') await rm(join(taken.stateDir, 'state.json'));
      await using second = await start({ pool_size: 0 }, first.directory);
      assert.deepEqual((await second.client.listSandboxes()).map(({ sandboxId }) => sandboxId).sort(), [
        'first',
        'taken',
      ]);
      assert.equal((await qemuProcessesBelow(first.stateDir)).length, 2);
      const adopted = await second.client.getSandbox('taken');
      assert.equal(adopted.qemuPid, taken.qemuPid);
      assert.equal(adopted.start?.templateId, taken.start.templateId);
      await until('the agent', async () => (await second.client.getSandbox('taken')).agentReady);
      assert.equal(await second.client.guest('taken', 'hostname'), 'taken\n');
    });
  }

  it('members of a template that is out of date are not used, and end', async () => {
    await using daemon = await start({ pool_size: 2 });
    const kernel = join(daemon.bootDir, 'vmlinuz');
    await copyFile(KERNEL, kernel);
    const first = await daemon.client.createSandbox({ sandboxId: 'one', spec: { ...spec, kernel } });
    await untilReady(daemon, 2);
    await utimes(kernel, 1, 1);
    const second = await daemon.client.createSandbox({ sandboxId: 'two', spec: { ...spec, kernel } });
    assert.equal(second.start?.kind, 'START_KIND_CLONE');
    assert.notEqual(second.start.templateId, first.start?.templateId);
    await untilReady(daemon, 4);
    assert.equal((await qemuProcessesBelow(daemon.stateDir)).length, 4, 'two sandboxes, two members');
  });

  it('all kinds together have a bound: what was asked for longest ago makes room', async () => {
    await using daemon = await start({ pool_max: 1 });
    const { client } = daemon;
    await client.createSandbox({ sandboxId: 'one', spec });
    await untilReady(daemon, 1);
    await client.createSandbox({ sandboxId: 'two', spec: { ...spec, vcpus: 2 } });
    await untilReady(daemon, 2);
    await until('the first to have ended', async () => {
      const members = await qemuProcessesBelow(join(daemon.stateDir));
      return members.length === 3;
    });
    assert.equal((await client.createSandbox({ sandboxId: 'three', spec })).start?.kind, 'START_KIND_CLONE');
    assert.ok(!(await client.getSandbox('three')).stateDir.includes(POOL_DIRECTORY_PREFIX));
  });
});

function count(text: string, part: string): number {
  return text.split(part).length - 1;
}
