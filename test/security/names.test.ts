import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, readlink, rename, rmdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { sandboxDirectory, sandboxesDirectory } from '../../src/qemu/files.ts';
import { identify } from '../../src/qemu/process.ts';
import { TestDaemon } from '../support/daemon.ts';
import { until } from '../support/until.ts';

/**
 * Ids that were names of files in the state directory: one became the lock (and a second daemon came), one took the
 * events' place, one was passed over by the next daemon, one was another sandbox's directory.
 */
const IDS = ['lock.sock', 'events.jsonl', 'x.left-1', 'x', basename(sandboxDirectory('/', 'x'))] as const;

async function running(daemon: TestDaemon, sandboxId: string): Promise<number> {
  return await until(`${sandboxId} runs`, async () => {
    const sandbox = (await daemon.client.listSandboxes()).find((each) => each.sandboxId === sandboxId);
    return sandbox?.state === 'SANDBOX_STATE_RUNNING' && sandbox.runState === 'running' ? sandbox.qemuPid : undefined;
  });
}

describe('ids that name files', { timeout: 600_000 }, () => {
  let daemon: TestDaemon;
  after(() => daemon[Symbol.asyncDispose]());

  it('harm nothing: lock, events, adoption, neighbours', async () => {
    daemon = await TestDaemon.start();
    const { directory } = daemon;
    const create = (sandboxId: string): Promise<unknown> =>
      daemon.client.createSandbox({
        sandboxId,
        spec: { vcpus: 1, memoryMib: 128, readyWhen: 'READY_WHEN_STARTED', accelerator: 'ACCELERATOR_TCG' },
      });
    for (const id of IDS) await create(id);
    const pids = new Map<string, number>();
    for (const id of IDS) pids.set(id, await running(daemon, id));

    const socket = join(directory, 'run/second.sock');
    const second = await TestDaemon.start({ directory, config: { socket } }).then(
      async (started) => {
        await started.kill('SIGKILL');
        return 'a second daemon started';
      },
      (error: unknown) => String(error),
    );
    assert.match(second, new RegExp(`another daemon \\(pid ${daemon.child.pid}\\) has the state directory`));
    assert.ok((await stat(join(daemon.stateDir, 'events.jsonl'))).isFile());
    for (const pid of pids.values()) {
      const names = await readdir(`/proc/${pid}/fd`);
      const links = await Promise.all(names.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
      assert.ok(!links.some((path) => path.endsWith('/lock.sock')), 'QEMU has not inherited the lock');
    }

    // kill -9 frees the lock, and the next daemon knows all of them.
    await daemon.kill('SIGKILL');
    daemon = await TestDaemon.start({ directory });
    for (const id of IDS) assert.equal(await running(daemon, id), pids.get(id), id);

    await daemon.client.deleteSandbox('x');
    await create('x');
    for (const id of IDS) {
      if (id !== 'x') assert.ok((await identify(pids.get(id) ?? 0)) !== undefined, `${id} lives`);
    }
    assert.equal((await daemon.client.listSandboxes()).length, IDS.length);
    assert.match(await readFile(join(daemon.stateDir, 'events.jsonl'), 'utf8'), /"sandbox.deleted"/);
    for (const id of IDS) await daemon.client.deleteSandbox(id);
  });

  it('a VM of the layout before is taken over with its guest, its volume, and its sockets', async () => {
    const { directory, stateDir } = daemon;
    await daemon.client.createSandbox({ sandboxId: 'vm', spec: { vcpus: 1, accelerator: 'ACCELERATOR_TCG' } });
    const spec = {
      rawFile: { path: await daemon.rawFile('a') },
      mount: { mountPoint: '/mnt/a', fsType: 'ext4', format: 'FORMAT_IF_EMPTY' },
    } as const;
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'a', spec });
    await daemon.client.guest('vm', 'echo kept > /mnt/a/file; sync');
    const pid = await running(daemon, 'vm');
    await daemon.kill('SIGKILL');
    await rename(daemon.directoryOf('vm'), join(stateDir, 'vm'));
    await rmdir(sandboxesDirectory(stateDir));
    await mkdir(join(stateDir, 'x.left-1'));
    await using _aside = { [Symbol.asyncDispose]: () => rmdir(join(stateDir, 'x.left-1')) };
    daemon = await TestDaemon.start({ directory });
    assert.equal(await running(daemon, 'vm'), pid);
    await until('the agent', async () => (await daemon.client.getSandbox('vm')).agentReady);
    assert.equal(await daemon.client.guest('vm', 'cat /mnt/a/file'), 'kept\n');
    const { state, generation } = await daemon.client.getVolume('vm', 'a');
    assert.deepEqual([state, generation], ['VOLUME_STATE_ATTACHED', 1]);
    const other = { rawFile: { path: await daemon.rawFile('b') } };
    await daemon.client.attach({ sandboxId: 'vm', volumeId: 'b', spec: other });
    assert.equal((await daemon.client.detach({ sandboxId: 'vm', volumeId: 'a' })).state, 'VOLUME_STATE_REMOVED');
  });
});
