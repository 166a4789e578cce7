import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { podConfig } from '../support/containerd/cri.ts';
import { ControllerClient } from '../support/containerd/controller-client.ts';
import { ContainerdRig } from '../support/containerd/rig.ts';
import { until } from '../support/until.ts';

describe('sandbox Controller, called by an unmodified containerd 2.1 through CRI', () => {
  let rig: ContainerdRig;
  before(async () => {
    rig = await ContainerdRig.start('2.1', { containerd_annotations: 'vcpus,memory-mib' });
  });
  after(() => rig[Symbol.asyncDispose]());

  it('a pod is a sandbox of the size that its annotations name; stopped and removed, nothing is left', async () => {
    const config = podConfig('sized', { 'io.qshim.vcpus': '2', 'io.qshim.memory-mib': '320' });
    const podId = await rig.cri.runPod(config);
    const sandbox = await rig.daemon.client.getSandbox(podId);
    assert.equal(sandbox.state, 'SANDBOX_STATE_RUNNING');
    assert.equal(sandbox.spec?.vcpus, 2);
    assert.equal(sandbox.spec.memoryMib, 320);
    assert.equal(sandbox.spec.labels['pod.name'], 'sized');
    assert.equal((await rig.cri.podStatus(podId)).state, 'SANDBOX_READY');
    await rig.cri.stopPod(podId);
    assert.equal((await rig.cri.podStatus(podId)).state, 'SANDBOX_NOTREADY');
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
    assert.deepEqual(await rig.cri.pods(), []);
  });

  it('a pod that cannot be is refused in words, and leaves nothing', async () => {
    for (const [annotations, words] of [
      [{ 'io.qshim.vcpu': '2' }, /io\.qshim\.vcpu = "2": is no annotation of qshim/],
      [{ 'io.qshim.vcpus': 'two' }, /io\.qshim\.vcpus = "two": must be a whole number/],
      [{ 'io.qshim.memory-mib': '1' }, /spec\.memory_mib = 1: must be from 64/],
      [
        { 'io.qshim.kernel': '/etc/passwd' },
        /io\.qshim\.kernel: the option containerd_annotations enables vcpus, memory-mib/,
      ],
    ] as const) {
      await assert.rejects(rig.cri.runPod(podConfig('refused', annotations)), words);
    }
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
    assert.deepEqual(await rig.cri.pods(), []);
  });

  it('Update attaches volumes to the running pod and detaches them, asked of containerd itself', async () => {
    const podId = await rig.cri.runPod(podConfig('update'));
    using controller = new ControllerClient(rig.address);
    const path = await rig.daemon.rawFile('update.raw');
    const volumes = [{ volumeId: 'data', spec: { rawFile: { path } } }];
    await controller.updateVolumes(podId, volumes);
    await controller.updateVolumes(podId, volumes); // The same once more changes nothing.
    const volume = await rig.daemon.client.getVolume(podId, 'data');
    assert.equal(volume.state, 'VOLUME_STATE_ATTACHED');
    assert.equal(volume.generation, 1);
    const listed = await rig.daemon.client.guest(podId, `cat /sys/block/vd*/serial`);
    assert.match(listed, /data/);
    await controller.updateVolumes(podId, []);
    assert.equal((await rig.daemon.client.getVolume(podId, 'data')).state, 'VOLUME_STATE_REMOVED');
    await assert.rejects(controller.update(podId, ['labels'], {}), /only "extensions\.volumes" can be updated/);
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
  });

  it('a VM that ends unasked makes the pod NOTREADY', async () => {
    const podId = await rig.cri.runPod(podConfig('killed'));
    const { qemuPid } = await rig.daemon.client.getSandbox(podId);
    process.kill(qemuPid, 'SIGKILL');
    await until('the pod is NOTREADY', async () => (await rig.cri.podStatus(podId)).state !== 'SANDBOX_READY');
    await rig.cri.stopPod(podId);
    await rig.cri.removePod(podId);
    assert.deepEqual(await rig.daemon.client.listSandboxes(), []);
  });
});
