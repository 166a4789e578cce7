import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { PodSandboxConfig } from '../../src/grpc/generated/runtime/v1/PodSandboxConfig.ts';
import { podConfig } from '../support/containerd/cri.ts';
import { ensureContainerd, NotAvailable } from '../support/containerd/packages.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';
import { realVmSkipReason } from '../support/guest-image.ts';

const STREAM_BYTES = 1024 * 1024;

/** Why no containerd can be had here, as text for a skip. */
async function containerdSkipReason(): Promise<string | false> {
  const noVm = await realVmSkipReason();
  if (noVm !== false) return noVm;
  if (process.getuid?.() !== 0) return 'containerd needs root';
  try {
    await ensureContainerd('2.1');
    return false;
  } catch (error) {
    if (error instanceof NotAvailable) return error.message;
    throw error;
  }
}

const skip = await containerdSkipReason();

/**
 * A short part of test/containerd (`npm run test:containerd`), for every run: one pod, one container, one killed
 * daemon.
 */
await describe('a pod, by an unmodified containerd 2.1', { skip }, async () => {
  let rig: ContainerdRig;
  let config: PodSandboxConfig;
  let podId: string;
  before(async () => {
    rig = await ContainerdRig.start('2.1');
    config = { ...podConfig('quick'), logDirectory: join(rig.directory, 'logs') };
    await mkdir(join(rig.directory, 'logs'));
    podId = await rig.cri.runPod(config);
  });
  after(() => rig[Symbol.asyncDispose]());

  await it('runs a container, with its streams and its exit code, over the death of the daemon; nothing is left', async () => {
    const script = 'while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 7';
    const command = ['/bin/sh', '-c', script];
    const id = await rig.cri.createContainer(podId, config, 'main', { command, logPath: 'main.log' });
    await rig.cri.startContainer(id);
    assert.notEqual((await rig.cri.shell(id, 'uname -r')).trim(), release());
    const sum = await rig.cri.shell(id, `head -c ${STREAM_BYTES} /dev/urandom > /tmp/a; sha256sum < /tmp/a`);
    const { stdout, stderr } = await rig.cri.exec(id, ['/bin/sh', '-c', 'cat /tmp/a & cat /tmp/a >&2; wait']);
    for (const stream of [stdout, stderr]) {
      assert.equal(createHash('sha256').update(stream).digest('hex'), sum.split(' ')[0]);
    }
    await rig.restartDaemon('SIGKILL');
    await rig.cri.shell(id, 'touch /tmp/end');
    assert.equal((await rig.exited(id)).exitCode, 7);
    await rig.cri.removeContainer(id);
    assert.deepEqual(await rig.attachedVolumes(podId), []);
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
