import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { podConfig } from '../support/containerd/cri.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

/** The guest's agent sleeps for ever: to the host the guest hangs. */
const STOP_AGENT = '(sleep 1; kill -STOP $(pidof qemu-ga)) >/dev/null 2>&1 &';

describe('a pod whose guest hangs', () => {
  let rig: ContainerdRig;
  before(async () => {
    rig = await ContainerdRig.start('2.1', { agent_timeout_ms: 5000, stop_timeout_ms: 2000 });
  });
  after(() => rig[Symbol.asyncDispose]());

  async function hanging(name: string): Promise<{ readonly podId: string; readonly id: string }> {
    const config = podConfig(name);
    const podId = await rig.cri.runPod(config);
    const id = await rig.cri.createContainer(podId, config, 'main', { command: ['/bin/sleep', '1000'] });
    await rig.cri.startContainer(id);
    await rig.daemon.client.guest(podId, STOP_AGENT);
    await rig.until(() =>
      rig.daemon.client.guest(podId, 'true').then(
        () => false,
        () => true,
      ),
    );
    return { podId, id };
  }

  it('refuses a process within its limit; StopContainer ends the container, by its VM when need be', async () => {
    const { podId, id } = await hanging('stop-container');
    await assert.rejects(rig.cri.exec(id, ['/bin/true']), /guest agent did not answer within 5000 ms/);
    await rig.cri.stopContainer(id, 1);
    const { state, exitCode } = await rig.cri.status(id);
    assert.deepEqual([state, exitCode], ['CONTAINER_EXITED', 255]);
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });

  it('is stopped by StopPodSandbox, and leaves nothing', async () => {
    const { podId } = await hanging('stop-pod');
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});

describe('a relay that dies', () => {
  let rig: ContainerdRig;
  before(async () => {
    rig = await ContainerdRig.start('2.1');
  });
  after(() => rig[Symbol.asyncDispose]());

  async function relayPid(): Promise<number> {
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (command.includes('relay-main.ts') && command.includes(rig.shimSocket)) return Number(pid);
    }
    throw new Error('there is no relay');
  }

  it('takes its containers with it; another answers, the pod runs others, and CRI removes all', async () => {
    const config = podConfig('relay');
    const podId = await rig.cri.runPod(config);
    const start = async (name: string): Promise<string> => {
      const id = await rig.cri.createContainer(podId, config, name, { command: ['/bin/sleep', '1000'] });
      await rig.cri.startContainer(id);
      return id;
    };
    const lost = await start('lost');
    process.kill(await relayPid(), 'SIGKILL');
    assert.equal((await rig.exited(lost)).exitCode, 255);
    // containerd forgets it once its end has been seen.
    await rig.until(() =>
      rig.cri.removeContainer(lost).then(
        () => true,
        () => false,
      ),
    );
    await rig.until(async () => (await rig.attachedVolumes(podId)).length === 0);
    const next = await start('next');
    assert.equal((await rig.cri.shell(next, 'echo here')).trim(), 'here');
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
