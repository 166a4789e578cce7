import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { podConfig } from '../support/containerd/cri.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';

const IN_TURN = 20;
const AT_ONCE = 4;

describe('many pods, by containerd 2.1 through CRI', () => {
  let rig: ContainerdRig;
  before(async () => {
    rig = await ContainerdRig.start('2.1');
  });
  after(() => rig[Symbol.asyncDispose]());

  async function podWithContainer(name: string, code: number): Promise<void> {
    const config = podConfig(name);
    const podId = await rig.cri.runPod(config);
    const command = ['/bin/sh', '-c', `exit ${code}`];
    const id = await rig.cri.createContainer(podId, config, 'main', { command });
    await rig.cri.startContainer(id);
    assert.equal((await rig.exited(id)).exitCode, code);
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
  }

  it(`${IN_TURN} pods one after the other`, async () => {
    for (let number = 0; number < IN_TURN; number++) await podWithContainer(`turn-${number}`, number);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });

  it(`${AT_ONCE} pods at once`, async () => {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, number) => podWithContainer(`once-${number}`, 30 + number)));
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
