import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import type { PodSandboxConfig } from '../../src/rpc/generated/runtime/v1/PodSandboxConfig.ts';
import { podConfig } from '../support/containerd/cri.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

/** Counts on stdout, and ends with 7 once the file /tmp/end is there. */
const COUNTING = 'n=0; while [ ! -e /tmp/end ]; do n=$((n+1)); echo line $n; sleep 0.2; done; exit 7';

suite('restarts under a live container', () => {
  let rig: ContainerdRig;
  let config: PodSandboxConfig;
  let podId: string;
  before(async () => {
    rig = await ContainerdRig.start('2.1');
    config = { ...podConfig('restarts'), logDirectory: join(rig.directory, 'logs') };
    await mkdir(join(rig.directory, 'logs'));
    podId = await rig.cri.runPod(config);
  });
  after(() => rig[Symbol.asyncDispose]());

  async function counting(name: string): Promise<string> {
    const command = ['/bin/sh', '-c', COUNTING];
    const id = await rig.cri.createContainer(podId, config, name, { command, logPath: `${name}.log` });
    await rig.cri.startContainer(id);
    return id;
  }

  async function endsWith7(id: string): Promise<void> {
    assert.equal((await rig.cri.status(id)).state, 'CONTAINER_RUNNING');
    await rig.cri.shell(id, 'touch /tmp/end');
    assert.equal((await rig.exited(id)).exitCode, 7);
    await rig.cri.removeContainer(id);
    assert.deepEqual(await rig.attachedVolumes(podId), []);
  }

  /** The numbers in a log, which must be 1, 2, 3 and so on. */
  async function countedWithoutGap(name: string): Promise<number> {
    const log = await readFile(join(rig.directory, `logs/${name}.log`), 'utf8');
    const numbers = [...log.matchAll(/stdout F line (\d+)\n/g)].map(([, number]) => Number(number));
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => index + 1),
    );
    return numbers.length;
  }

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    test(`qshimd restarted with ${signal}: containerd notices nothing, output and exit code arrive`, async () => {
      const name = `daemon-${signal.toLowerCase()}`;
      const id = await counting(name);
      await rig.restartDaemon(signal);
      const before = await countedWithoutGap(name);
      assert.equal((await rig.cri.shell(id, 'echo still here')).trim(), 'still here');
      await rig.until(async () => (await countedWithoutGap(name)) > before + 3);
      await endsWith7(id);
      await countedWithoutGap(name);
    });

    test(`containerd restarted with ${signal}: the container goes on`, async () => {
      const id = await counting(`containerd-${signal.toLowerCase()}`);
      await rig.stopContainerd(signal);
      await rig.startContainerd();
      assert.equal((await rig.cri.podStatus(podId)).state, 'SANDBOX_READY');
      await endsWith7(id);
    });
  }

  test('an exit while containerd is away is told when it is back', async () => {
    const id = await counting('missed');
    await rig.stopContainerd('SIGKILL');
    await rig.daemon.client.guest(podId, `touch $(echo /run/qshim/volumes/rootfs-*/tmp)/end`);
    await rig.until(async () => (await rig.daemon.log()).includes(`containerd takes no events`));
    await rig.startContainerd();
    assert.equal((await rig.exited(id)).exitCode, 7);
    await rig.cri.removeContainer(id);
  });

  test('an exit while qshimd is away is told when it is back', async () => {
    const id = await counting('unseen');
    await rig.daemon.client.guest(
      podId,
      `(sleep 1; touch $(echo /run/qshim/volumes/rootfs-*/tmp)/end) >/dev/null 2>&1 &`,
    );
    await rig.restartDaemon('SIGKILL', 3000);
    assert.equal((await rig.exited(id)).exitCode, 7);
    await countedWithoutGap('unseen');
    await rig.cri.removeContainer(id);
  });

  test('the pod that has lived through all that stops and leaves nothing', async () => {
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
